from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from services.tracking.hashes import content_hashes
from services.tracking.lineage import lineage, recorded_tags

LOCK = """\
schema: '2.0'
stages:
  split:
    cmd: python -m cohort.split
    outs:
    - path: data/split.json
      hash: md5
      md5: bbb
  train@3d:
    cmd: python -m training.train --dim 3d
    deps:
    - path: data/split.json
      hash: md5
      md5: bbb
    - path: training/train.py
      hash: md5
      md5: code
    params:
      params.yaml:
        train.3d: {}
    outs:
    - path: data/models/3d/base
      hash: md5
      md5: ccc.dir
      size: 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DTI_GIT_COMMIT", "DTI_GIT_DIRTY"):
        monkeypatch.delenv(name, raising=False)


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *words], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "data").mkdir()
    (tmp_path / ".gitignore").write_text("data\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_it_names_code_parameters_and_the_inputs_as_they_are(project: Path) -> None:
    split = Path("data/split.json")
    split.write_text("{}")
    assert lineage([split, Path("data/derivatives")], project) == {
        "git.commit": git(project, "rev-parse", "HEAD"),
        "git.dirty": "false",
        "params.yaml": hashlib.md5(b"seed: 1\n").hexdigest(),
        "data.data/split.json": hashlib.md5(b"{}").hexdigest(),
        "data.data/derivatives": "missing",
    }


def test_a_change_makes_it_dirty_but_the_lock_that_dvc_rewrites_does_not(project: Path) -> None:
    (project / "dvc.lock").write_text(LOCK.replace("bbb", "ddd"))
    assert lineage([], project)["git.dirty"] == "false"
    (project / "params.yaml").write_text("seed: 2\n")
    assert lineage([], project)["git.dirty"] == "true"


def test_outside_git_it_is_the_environment_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lineage([], tmp_path) == {
        "git.commit": "unknown",
        "git.dirty": "unknown",
        "params.yaml": "missing",
    }
    monkeypatch.setenv("DTI_GIT_COMMIT", "abc")
    monkeypatch.setenv("DTI_GIT_DIRTY", "false")
    assert lineage([], tmp_path)["git.commit"] == "abc"
    assert lineage([], tmp_path)["git.dirty"] == "false"


def test_the_entry_of_these_files_gives_what_was_read_and_made(project: Path) -> None:
    base = Path("data/models/3d/base")
    assert recorded_tags(base, "ccc.dir") == {
        "data.data/split.json": "bbb",
        "data.data/models/3d/base": "ccc.dir",
    }
    assert recorded_tags(base, "other.dir") == {}
    assert recorded_tags(Path("data/models/3d/adapted"), "ccc.dir") == {}


@pytest.mark.parametrize("text", ["", "stages: [", "schema: '2.0'", "stages: {a: {cmd: x}}"])
def test_a_lock_that_cannot_be_read_gives_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    assert recorded_tags(Path("data/split.json"), "bbb") == {}


@pytest.mark.parametrize("initialised", [True, False])
def test_hashes_are_those_that_dvc_records(project: Path, initialised: bool) -> None:
    """A stage that DVC runs sees the hash that DVC writes into dvc.lock after it."""
    from ruamel.yaml import YAML

    dvc = [sys.executable, "-m", "dvc"]
    make = (
        "mkdir -p data/d/in && echo 1 > data/d/a && echo 2 > data/d/in/b && echo x > data/d/c.pyc"
    )
    (project / ".dvcignore").write_text("*.pyc\n")
    (project / "dvc.yaml").write_text(
        f"stages:\n  s:\n    cmd: {make} && echo 3 > data/f\n    outs: [data/d, data/f]\n"
    )
    (project / "dvc.lock").unlink()
    subprocess.run([*dvc, "init", "-q"], check=True)
    subprocess.run([*dvc, "repro", "-q"], check=True)
    stage = YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]["s"]
    recorded = {Path(out["path"]): out["md5"] for out in stage["outs"]}
    if not initialised:
        (project / "data/d/c.pyc").unlink()
        (project / ".dvc").rename(project / "gone")
    assert content_hashes(recorded) == recorded
    (project / "data/d/a").write_text("changed\n")
    assert content_hashes(recorded)[Path("data/d")] != recorded[Path("data/d")]
