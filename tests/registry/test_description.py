"""What the files say of a model, and what is told where they say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contracts.errors import UserError
from contracts.paths import MODELS, REPORTS
from registry.description import read_description
from services.tracking.hashes import content_hashes
from tests.registry.chain import LINEAGE, made, write_chain, write_json


@pytest.fixture
def chain(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_chain(("3d",))


def write_lock(read: str, kept: dict[str, str]) -> None:
    """A `dvc.lock` whose stage `adapt@3d` read this version of the derivatives."""
    stage = {
        "cmd": "python -m training.adapt --dim 3d",
        "deps": [
            {"path": "data/derivatives", "hash": "md5", "md5": read},
            {"path": "training/adapt.py", "hash": "md5", "md5": "code"},
        ],
        "outs": [{"path": path, "hash": "md5", "md5": value} for path, value in kept.items()],
    }
    write_json(Path("dvc.lock"), {"schema": "2.0", "stages": {"adapt@3d": stage}})


def test_the_tags_are_scores_gate_and_lineage(chain: None) -> None:
    model = read_description("3d")
    version = model.versions["adapted"]
    assert version.tags["gate"] == "passed"
    assert version.tags["base.digest"] == made("3d", "base").digest
    assert version.tags["test.fa_error"] == "0.02 [0.01, 0.03] (gaussian 0.03, real 0.01)"
    assert LINEAGE.items() <= version.tags.items()
    assert model.to_json()["digest"] == version.digest == made("3d", "adapted").digest


def test_the_lineage_is_that_of_the_lock_that_recorded_these_files(chain: None) -> None:
    folder = MODELS / "3d" / "adapted"
    found = content_hashes([folder])[folder]
    kept = {folder.as_posix(): found, "data/reports/adapt-3d.json": "r1"}
    write_lock("d2.dir", kept)
    lineage = read_description("3d").versions["adapted"].lineage
    assert lineage == {
        "data.data/derivatives": "d2.dir",
        "data.data/models/3d/adapted": found,
        "data.data/reports/adapt-3d.json": "r1",
    }


def test_a_lock_of_other_files_is_not_believed(chain: None) -> None:
    folder = MODELS / "3d" / "adapted"
    write_lock("d2.dir", {folder.as_posix(): "another.dir"})
    lineage = read_description("3d").versions["adapted"].lineage
    assert lineage == {
        "data.data/derivatives": "d1.dir",
        "data.data/models/3d/adapted": content_hashes([folder])[folder],
    }


def test_scores_of_another_generator_are_refused(chain: None) -> None:
    path = REPORTS / "evaluate-base-3d.json"
    write_json(path, {**json.loads(path.read_text()), "digest": "another"})
    with pytest.raises(UserError, match=r"scores generator another.*dvc repro evaluate@base-3d"):
        read_description("3d")


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("data/reports/adapt-3d.json", "dvc repro adapt@3d"),
        ("data/reports/evaluate-base-3d.json", "dvc repro evaluate@base-3d"),
        ("data/models/3d/base/generator.json", "dvc repro train@3d"),
        ("data/models/3d/adapted/run.json", "dvc repro adapt@3d"),
    ],
)
def test_a_missing_file_names_the_command_that_makes_it(
    chain: None, missing: str, told: str
) -> None:
    Path(missing).unlink()
    with pytest.raises(UserError, match=told):
        read_description("3d")
