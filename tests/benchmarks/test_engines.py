"""Registration engines are compared on equal terms: same direction, same boundary, same values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import registration, result
from benchmarks.engines import CHANNELS, Engine, Task, dipy, interpolated, ours
from cohort import interpolation

SHAPE = (14, 16, 12)


@pytest.fixture
def shift() -> torch.Tensor:
    made = torch.Generator().manual_seed(1)
    return 3 * interpolation.smooth(torch.randn(3, *SHAPE, generator=made), 1.5)


@pytest.fixture
def task() -> Task:
    """A ball whose template lies one voxel further along the first axis."""

    def ball(x: float) -> torch.Tensor:
        axes = torch.meshgrid(*[torch.arange(0, 19.5, 0.5)] * 3, indexing="ij")
        depth = 6 - ((axes[0] - x).square() + sum((a - 9.5).square() for a in axes[1:])).sqrt()
        fa, md = 0.2 + 0.1 * depth.clamp(0, 4), 0.6 - 0.08 * depth.clamp(0, 4)
        return torch.stack([fa, md, (depth / 3).clamp(min=-1)])

    volume, template = ball(9)[:, ::2, ::2, ::2].contiguous(), ball(10)
    mask = volume[-1].numpy() > -1
    return Task(volume, template, 20 * torch.ones_like(volume), mask, 1.0)


@pytest.mark.parametrize("finer", [1, 2])
def test_scipy_interpolates_as_we_do(finer: int, shift: torch.Tensor) -> None:
    image = torch.randn(2, *[(n - 1) * finer + 1 for n in SHAPE])
    np.testing.assert_allclose(
        interpolated(image, shift), interpolation.displaced(image, shift), atol=1e-4
    )


@pytest.mark.parametrize(
    "engine",
    [ours(range(3)), ours(range(3), interpolated), dipy("CC", "sum", [20, 5])],
    ids=["ours", "pieces", "dipy"],
)
def test_engines_displace_the_template_towards_the_subject(engine: Engine, task: Task) -> None:
    shift, inverse = engine(task)
    # Where the ball has an edge in that direction; the template's is one voxel further.
    assert shift[0, 3:5, 9:11, 9:11].mean() == pytest.approx(1, abs=0.3)
    assert inverse is None or inverse[0, 4:6, 9:11, 9:11].mean() == pytest.approx(-1, abs=0.3)
    found = registration.measured(engine, task)
    assert all(found[f"{name}_left"] < 0.5 for name in CHANNELS)
    assert found["least_jacobian"] > 0
    assert found["inverse_error"] < 0.1


def test_a_run_ends_in_a_result_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    monkeypatch.setattr(registration, "subjects", lambda resolution, count, work: None)
    monkeypatch.setattr(registration, "tasks", lambda known, fitted: ([task, task], 9.0))
    monkeypatch.setattr(registration, "engines", lambda: {"ours": ours([0])})
    monkeypatch.setattr(result, "RESULTS", tmp_path)
    done = CliRunner().invoke(registration.main, ["--fitted", "2", "--held-out", "2"])
    assert done.exit_code == 0, done.output
    kept = result.read("registration", tmp_path)
    assert kept is not None
    (row,) = kept.rows
    assert row["template_cpu_seconds"] == 9.0
    assert row["cpu_seconds"]["low"] <= row["cpu_seconds"]["value"] <= row["cpu_seconds"]["high"]
