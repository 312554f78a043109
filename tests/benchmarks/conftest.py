"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import contestants
from benchmarks.brains import RegisteredSubjects
from cohort.row_cache import Array
from contracts.condition import Condition
from contracts.space import Space
from tests.evaluation.conftest import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session", autouse=True)
def one_template_per_set_of_subjects(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[None]:
    """Tests of the same subjects share their template: making it is most of their time."""
    kept = tmp_path_factory.mktemp("templates")

    def shared(
        encoded: Array, people: Sequence[Condition], space: Space, _: Path
    ) -> RegisteredSubjects:
        digest = hashlib.sha256(encoded.tobytes() + repr(people).encode()).hexdigest()
        return RegisteredSubjects.of(encoded, people, space, kept / digest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contestants, "RegisteredSubjects", SimpleNamespace(of=shared))
        yield
