"""Fixtures of the cohort room's tests."""

from __future__ import annotations

import numpy as np
import pytest

from cohort.registration import MniTemplate
from contracts.space import Space
from tests.cohort.small_scans import ball


@pytest.fixture
def spheres(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard space is one of spheres, since real templates take seconds to load."""

    def load(space: Space) -> MniTemplate:
        outer, inner = ball(60), ball(40)
        return MniTemplate(space, outer.astype(np.float32), inner.astype(np.float32), outer)

    monkeypatch.setattr("cohort.registration.load_mni_template", load)
