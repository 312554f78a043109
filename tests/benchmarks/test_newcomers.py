"""New people come from the recipe of the cohort, and are none of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.newcomers import newcomers
from cohort.simulate import SimulateSettings, recruit
from contracts import params
from contracts.errors import UserError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(folder: Path, source: str) -> None:
    (folder / "params.yaml").write_text(
        f"""simulate: {{seed: 5, resolution_mm: 4, output: maps, base_subjects: 3,
                        target_subjects: 2, max_bvalue: 1300}}
derive: {{source: {source}, resolution_mm: 4, max_bvalue: 1300}}
"""
    )


def test_are_of_the_recipe_and_new(project: Path) -> None:
    _write(project, "data/bids/derivatives/simulated")
    made = newcomers(2, project / "work")
    assert len(made.ids) == 2
    assert made.volumes.shape == (2, 2, *made.space.shape)
    assert made.masks.any(axis=(1, 2, 3)).all()
    cohort = {(p.age, p.sex) for p in recruit(params.load(SimulateSettings, "simulate"))}
    assert not cohort & {(c.age, c.sex) for c in made.conditions}
    # Once made, they are kept, and the cohort's own folders are left alone.
    again = newcomers(2, project / "work")
    np.testing.assert_array_equal(again.volumes, made.volumes)
    assert not (project / "data").exists()


def test_real_people_cannot_be_made(project: Path) -> None:
    _write(project, "/cohorts/ours")
    with pytest.raises(UserError, match="real people cannot be made"):
        newcomers(2, project / "work")
