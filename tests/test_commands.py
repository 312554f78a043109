"""Every command: help without heavy imports, mistakes in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.closure import module_files

ROOT = Path(__file__).resolve().parent.parent
# Every module that can be started, but for the benchmarks.
MODULES = [
    name.removesuffix(".__main__")
    for name, path in module_files().items()
    if '__name__ == "__main__"' in path.read_text() and not name.startswith("benchmarks.")
]
SCRIPTS = ["training/train_unet.py", "evaluation/eval_metrics.py"]
HEAVY = ("torch", "monai", "mlflow", "ray", "bentoml", "dipy", "nilearn", "scipy", "matplotlib")
PROBE = """
import atexit, runpy, sys
def told():
    heavy = [m for m in {heavy!r} if m in sys.modules]
    print("HEAVY", *heavy)
atexit.register(told)
sys.argv = [{name!r}, "--help"]
{run}
"""


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("name", MODULES + SCRIPTS)
def test_help_answers_without_heavy_imports(name: str) -> None:
    if name.endswith(".py"):
        start = f"runpy.run_path({name!r}, run_name='__main__')"
    else:
        start = f"runpy.run_module({name!r}, run_name='__main__')"
    done = run("-c", PROBE.format(heavy=HEAVY, name=name, run=start))
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY"), done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", "cohort.split"], "no data/derivatives/participants.tsv"),
        (["-m", "training.train", "--dim", "3d"], "run `dvc repro derive` first"),
        (["-m", "evaluation.evaluate", "--name", "base-3d"], "train one with `dvc repro` first"),
        (["-m", "evaluation.summary"], "run `make demo` first"),
        (["evaluation/eval_metrics.py"], "run `dvc repro` first"),
    ],
)
def test_missing_input_is_told_in_one_line(project: Path, arguments: list[str], told: str) -> None:
    if arguments[0].endswith(".py"):
        arguments = [str(ROOT / arguments[0])]
    done = run(*arguments, cwd=project)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_an_unknown_key_is_told_in_one_line(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("learning_rate", "learning_rat"))
    done = run("-m", "training.train", "--dim", "2d", cwd=project)
    assert done.returncode == 2
    assert "unknown key 'train.2d.loop.learning_rat'; did you mean 'learning_rate'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_choice_is_told(project: Path) -> None:
    done = run("-m", "training.train", "--dim", "4d", cwd=project)
    assert done.returncode == 2
    assert "'4d' is not one of '2d', '3d'" in done.stderr


def test_the_scripts_that_people_know_run_from_anywhere(project: Path) -> None:
    done = run(str(ROOT / "training/train_unet.py"), "--mode", "3D", "--peft", "lora", cwd=project)
    assert done.returncode == 2
    assert "no derivatives in data/derivatives" in done.stderr
