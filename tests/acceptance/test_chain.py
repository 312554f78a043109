"""What `make demo` left behind, used as a researcher would. Run `make demo` first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from evaluation.results import QUESTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
REPORTS = ROOT / "data" / "reports"
NAMES = ("base-2d", "base-3d", "adapted-2d", "adapted-3d")

pytestmark = pytest.mark.acceptance


def run(*command: str, cwd: Path = ROOT) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def report(name: str) -> dict:  # type: ignore[type-arg]
    path = REPORTS / f"evaluate-{name}.json"
    assert path.exists(), "run `make demo` first"
    found: dict = json.loads(path.read_text())  # type: ignore[type-arg]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_pictures_and_scores_are_there(name: str) -> None:
    scores = report(name)
    assert set(scores["verdicts"]) == set(QUESTIONS)
    for score, found in scores["metrics"].items():
        assert found["low"] <= found["value"] <= found["high"], score
    yardsticks = scores["metrics"]["kernel_distance"]
    assert yardsticks["copies"] < yardsticks["gaussian"]
    assert scores["metrics"]["near_duplicates"]["copies"] > 0
    page = (REPORTS / f"report-{name}.html").read_text()
    assert len(page) < 2_000_000
    assert all(question in page.lower() for question in QUESTIONS)
    for picture in ("gallery", "ageing"):
        assert (REPORTS / f"{picture}-{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["base-2d", "base-3d"])
@pytest.mark.parametrize("score", ["kernel_distance", "fa_histogram", "md_histogram"])
def test_a_generator_beats_the_gaussian_baseline(name: str, score: str) -> None:
    found = report(name)["metrics"][score]
    assert found["value"] < found["gaussian"]


def test_both_champions_are_registered() -> None:
    registry = json.loads((REPORTS / "registry.json").read_text())
    for dim in ("2d", "3d"):
        assert registry[dim]["model"] == f"dti-{dim}"
        assert registry[dim]["digest"] == registry[dim]["digests"][registry[dim]["champion"]]


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_two_processes_write_the_same_file_and_it_opens_elsewhere(dim: str, tmp_path: Path) -> None:
    for map_name, top in (("fa", 1.0), ("md", 3.2e-3)):
        paths = [tmp_path / f"{i}-{map_name}.nii.gz" for i in range(2)]
        for path in paths:
            run(
                *(sys.executable, "-m", "serving.sample", "--dim", dim, "--age", "65"),
                *("--sex", "F", "--seed", "7", "--steps", "4", "--map", map_name),
                *("--output", str(path)),
            )
        assert paths[0].read_bytes() == paths[1].read_bytes()
        image = nib.load(paths[0])
        values = image.get_fdata()
        assert values.min() == 0
        assert values.max() <= np.float32(top)
        assert (values > 0).sum() * 0.064 > 1000  # ml of brain
        other = sitk.ReadImage(str(paths[0]))
        np.testing.assert_allclose(sitk.GetArrayFromImage(other).T, values, atol=1e-7)
        corner = other.TransformIndexToPhysicalPoint((0, 0, 0))
        np.testing.assert_allclose(np.array([-1, -1, 1]) * corner, image.affine[:3, 3])


def test_dvc_says_what_changed_and_moves_data(tmp_path: Path) -> None:
    assert "kernel_distance" in run("dvc", "metrics", "show", "--md")
    page = run("dvc", "plots", "show", "--out", str(tmp_path / "plots"))
    assert "index.html" in page
    run("dvc", "push", "data/split.json")
    split = (ROOT / "data/split.json").read_bytes()
    (ROOT / "data/split.json").unlink()
    run("dvc", "pull", "data/split.json")
    assert (ROOT / "data/split.json").read_bytes() == split
    kept = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", kept)
    try:
        text = kept.read_text()
        (ROOT / "params.yaml").write_text(text.replace("samples: 32", "samples: 31"))
        changed = run("dvc", "params", "diff", "--md")
        assert "evaluate.samples" in changed
        stale = run("dvc", "status")
        assert "evaluate@base-2d" in stale
        assert "train@2d" not in stale.split("evaluate@")[0]
    finally:
        shutil.copy(kept, ROOT / "params.yaml")
