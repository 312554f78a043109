"""A trained base of each dimension."""

from __future__ import annotations

import pytest

from models.generator import Generator
from tests.models.tiny import tiny_generator


@pytest.fixture(params=["2d", "3d"])
def base(request: pytest.FixtureRequest) -> Generator:
    return tiny_generator(request.param)
