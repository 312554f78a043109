"""Costs are measured on the network of ours, beside MONAI's plain step of the same network."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import costs, result
from benchmarks.table_definitions import TABLES
from cohort.subjects import Subjects
from contracts.maps import MAPS
from models.config import Dim
from tests.cohort.tiny import BENT_SPACE, bent_brains

PARAMS = """
train:
  2d:
    network: {channels: [16, 16], res_blocks: 1, attention: false}
    diffusion: {path: flow}
    loop: {steps: 1, batch: 2, slices: 3}
  3d:
    network: {channels: [16, 16], res_blocks: 1, attention: false}
    diffusion: {path: flow}
    loop: {steps: 1, batch: 2, cubes: 2, cube_edge: 8}
"""


@pytest.fixture
def subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subjects:
    """A few subjects; the working directory has params of its own."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    volumes, masks, conditions = bent_brains(8)
    ids = tuple(f"sub-{i:03d}" for i in range(8))
    return Subjects(ids, MAPS, volumes, masks, tuple(conditions), BENT_SPACE, "bent")


@pytest.mark.parametrize(("dim", "batches"), [("2d", [6]), ("3d", [1, 4])])
def test_a_step_is_compared_per_image(
    dim: Dim, batches: list[int], subjects: Subjects, tmp_path: Path
) -> None:
    rows = costs.training_step(dim, subjects, tmp_path / "work", rounds=1)
    assert [row["batch"] for row in rows] == batches
    assert all(row["monai_cpu_s"]["value"] > 0 for row in rows)
    assert all(row["monai_over_ours"]["value"] > 0 for row in rows)
    found = result.write("costs", rows, n={"rounds": 1}, folder=tmp_path)
    shown = TABLES["step-costs"].body(found).splitlines()
    assert len(shown) == 2 + len(batches)
    assert not [line for line in shown[2:] if "|  |" in line], "a cell without a number"


def test_a_sample_is_compared_with_a_thousand_evaluations(
    subjects: Subjects, tmp_path: Path
) -> None:
    rows = costs.sampling("3d", subjects, tmp_path / "work", rounds=1)
    assert [row["evaluations"] for row in rows] == list(costs.EVALUATIONS)
    # A sample makes fewer evaluations than DDPM, and does little beside them.
    assert all(row["thousand_over_sample"]["value"] > 1 for row in rows)
