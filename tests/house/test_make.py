"""What the targets of the Makefile call, with commands that only write down that they were."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from contracts.closure import ROOT

TOOL = """#!/bin/sh
echo "$(basename $0) $* OMP_WAIT_POLICY=$OMP_WAIT_POLICY" >>"$CALLS"
case "$*" in
  status*) exit ${STALE:-0};;
  repro*) exit ${REPRO:-0};;
  --wait-for-lock*) exit ${CHAIN:-0};;
  pull*) exit ${PULL:-0};;
esac
"""


class Project:
    """A folder with the Makefile, installed already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        shutil.copy(ROOT / "Makefile", folder)
        tools = folder / ".venv/bin"
        tools.mkdir(parents=True)
        for name in ("pyproject.toml", "requirements.lock", ".venv/.ready"):
            (folder / name).touch()
        for name in ("dvc", "python", "bentoml"):
            (tools / name).write_text(TOOL)
            (tools / name).chmod(0o755)

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        self.calls_file.unlink(missing_ok=True)
        kept = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "MAKEFLAGS")}
        return subprocess.run(
            ["make", target],
            cwd=self.folder,
            env={**kept, "CALLS": str(self.calls_file), **variables},
            capture_output=True,
            text=True,
        )

    @property
    def calls(self) -> list[str]:
        """The commands in their order, without the environment."""
        lines = self.calls_file.read_text().splitlines()
        return [line.partition(" OMP_WAIT_POLICY")[0] for line in lines]

    @property
    def environments(self) -> set[str]:
        """The wait policies that the commands saw."""
        lines = self.calls_file.read_text().splitlines()
        return {line.rpartition("=")[2] for line in lines}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def registrations(project: Project) -> list[int]:
    """The places of the registrations among the calls."""
    return [i for i, call in enumerate(project.calls) if call.endswith(".register")]


def test_demo_that_is_up_to_date_still_registers(project: Project) -> None:
    done = project.make("demo")
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert "dvc repro" not in project.calls
    assert len(registrations(project)) == 1
    assert project.calls[-1] == "python -m evaluation.summary"


@pytest.mark.parametrize("target", ["demo", "repro"])
def test_a_run_of_the_chain_ends_with_registration(project: Project, target: str) -> None:
    done = project.make(target, STALE="1")
    assert done.returncode == 0, done.stderr
    (last,) = registrations(project)
    assert project.calls.index("dvc repro") < last


def test_the_demo_makes_both_dimensions_side_by_side_and_then_the_rest(project: Project) -> None:
    project.make("demo", STALE="1")
    chains = [
        f"--single-item train@{dim} adapt@{dim} evaluate@base-{dim} evaluate@adapted-{dim}"
        for dim in ("2d", "3d")
    ]
    assert project.calls[1] == "dvc repro template"
    assert sorted(project.calls[2:4]) == [f"dvc --wait-for-lock repro {c}" for c in chains]
    assert project.calls[4] == "dvc repro"


@pytest.mark.parametrize(
    ("target", "broken"), [("demo", "REPRO"), ("demo", "CHAIN"), ("repro", "REPRO")]
)
def test_a_chain_that_stops_says_how_to_get_the_last_outputs(
    project: Project, target: str, broken: str
) -> None:
    done = project.make(target, STALE="1", **{broken: "255"})
    assert done.returncode != 0
    assert "dvc checkout" in done.stderr
    assert registrations(project) == []


def test_pull_ends_with_registration(project: Project) -> None:
    assert project.make("pull").returncode == 0
    assert project.calls[0] == "dvc pull"
    assert registrations(project) == [1]


def test_a_pull_of_what_nobody_has_says_what_to_do_instead(project: Project) -> None:
    done = project.make("pull", PULL="1")
    assert done.returncode != 0
    assert "make it with `make demo`" in done.stderr
    assert registrations(project) == []


@pytest.mark.parametrize("target", ["demo", "repro", "pull", "tune", "serve", "ui", "stages"])
def test_threads_wait_without_spinning_unless_the_user_says_so(
    project: Project, target: str
) -> None:
    project.make(target)
    assert project.environments == {"PASSIVE"}
    project.make(target, OMP_WAIT_POLICY="ACTIVE")
    assert project.environments == {"ACTIVE"}


def test_every_target_is_listed_with_what_it_does(project: Project) -> None:
    listed = {line.split()[0] for line in project.make("help").stdout.splitlines()}
    text = (ROOT / "Makefile").read_text()
    phony = text.partition(".PHONY:")[2].split()
    steps = {target for target in phony if target.startswith("chain-")}  # of the demo
    assert set(phony) - {"help"} - steps <= listed
