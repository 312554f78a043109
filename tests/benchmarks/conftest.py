"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import brains, contestants
from cohort.row_cache import Array
from contracts.space import Space
from tests.evaluation.conftest import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session", autouse=True)
def one_template_per_set_of_subjects(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Tests of the same subjects share their template: making it is most of their time."""
    kept = tmp_path_factory.mktemp("templates")
    make = brains.relative_subjects

    def shared(encoded: Array, people: Any, space: Space, _: Path, digest: str, *sites: Any) -> Any:
        return make(encoded, people, space, kept / digest, digest, *sites)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, "relative_subjects", shared)
        yield
