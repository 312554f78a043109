"""Result files: complete, read back as written, and known to be of the code or not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import result
from contracts.errors import UserError


def _git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit."""
    _git(tmp_path, "init")
    (tmp_path / "code.py").write_text("a = 1\n")
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-m", "first")
    monkeypatch.setattr(result, "ROOT", tmp_path)
    return tmp_path


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"name": "a", "time": result.interval(1 / 3, 0.1, 0.5), "left": None}]
    written = result.write(
        "some", rows, n={"rounds": 3}, seeds=range(2), intervals=result.ROUNDS, folder=tmp_path
    )
    assert result.read("some", tmp_path) == written
    assert written.rows[0]["time"]["value"] == pytest.approx(1 / 3)
    assert written.seeds == [0, 1]
    assert written.machine["cores"] >= written.machine["threads"] == 1
    assert written.machine["memory"] > 0.1
    assert {"python", "torch", "monai", "numpy"} <= set(written.versions)
    content = json.loads((tmp_path / "some.json").read_text())
    described = (result.RESULTS / "README.md").read_text()
    assert all(f"`{key}`" in described for key in content)
    assert result.read("other", tmp_path) is None


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text('{"cells": []}')
    with pytest.raises(UserError, match=r"results/README\.md"):
        result.read("some", tmp_path)


def test_uncommitted_changes_of_the_code_are_told(project: Path) -> None:
    folder = project / "results"
    clean = result.write("some", [], n={}, folder=folder)
    assert not clean.dirty
    # Results and docs are about the code, and no part of it.
    assert not result.write("other", [], n={}, folder=folder).dirty
    (project / "code.py").write_text("a = 2\n")
    assert result.write("third", [], n={}, folder=folder).dirty


def test_a_result_is_of_this_code_until_the_code_changes(project: Path) -> None:
    found = result.write("some", [], n={}, folder=project / "results")
    assert result.is_of_this_code(found)
    _git(project, "add", ".")
    _git(project, "commit", "-m", "results")
    assert result.is_of_this_code(found)
    (project / "code.py").write_text("a = 2\n")
    assert not result.is_of_this_code(found)
    _git(project, "commit", "-am", "other code")
    assert not result.is_of_this_code(found)


def test_without_git_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = result.write("some", [], n={}, folder=tmp_path)
    assert (found.commit, found.dirty) == ("unknown", True)
    assert not result.is_of_this_code(found)
