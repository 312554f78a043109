from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from services.tracking.lineage import lineage, outputs

LOCK = """\
schema: '2.0'
stages:
  derive:
    cmd: python -m cohort.derive
    outs:
    - path: data/derivatives
      hash: md5
      md5: aaa.dir
      size: 3
  split:
    cmd: python -m cohort.split
    outs:
    - path: data/split.json
      hash: md5
      md5: bbb
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
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
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_it_names_code_data_and_parameters(project: Path) -> None:
    split = project / "params.yaml"
    tags = lineage(project, split)
    md5 = hashlib.md5(split.read_bytes()).hexdigest()
    assert tags == {
        "git.commit": git(project, "rev-parse", "HEAD"),
        "git.dirty": "false",
        "mlflow.source.git.commit": git(project, "rev-parse", "HEAD"),
        "dvc.lock": hashlib.md5(LOCK.encode()).hexdigest(),
        "params.yaml": md5,
        "split.digest": md5,
        "data.data/derivatives": "aaa.dir",
        "data.data/split.json": "bbb",
    }


def test_a_change_makes_it_dirty_but_the_lock_that_dvc_rewrites_does_not(project: Path) -> None:
    (project / "dvc.lock").write_text(LOCK.replace("bbb", "ccc"))
    assert lineage(project)["git.dirty"] == "false"
    (project / "params.yaml").write_text("seed: 2\n")
    assert lineage(project)["git.dirty"] == "true"


def test_outside_git_it_is_the_environment_or_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lineage(tmp_path) == {
        "git.commit": "unknown",
        "git.dirty": "unknown",
        "dvc.lock": "missing",
        "params.yaml": "missing",
        "split.digest": "missing",
    }
    monkeypatch.setenv("DTI_GIT_COMMIT", "abc")
    monkeypatch.setenv("DTI_GIT_DIRTY", "false")
    assert lineage(tmp_path)["git.commit"] == "abc"
    assert lineage(tmp_path)["git.dirty"] == "false"


@pytest.mark.parametrize("text", ["", "stages: [", "schema: '2.0'", "stages: {a: {cmd: x}}"])
def test_a_lock_that_cannot_be_read_gives_no_outputs(tmp_path: Path, text: str) -> None:
    (tmp_path / "dvc.lock").write_text(text)
    assert outputs(tmp_path / "dvc.lock") == {}
