"""The registry is what the files say: after a revert, elsewhere, again, and after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UserError
from contracts.paths import MODELS, REPORTS
from models.config import Dim
from registry import versions
from registry.champion import fetch_champion
from registry.description import read_description
from registry.reconciliation import reconcile
from registry.register import REGISTRY, register
from services.tracking import store
from tests.registry.chain import LINEAGE, made, write_chain, write_distances, write_generator

DIM: Dim = "3d"
NAME = versions.model_name(DIM)
ROOT = Path(versions.__file__).parents[1]


@pytest.fixture
def runs(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Any, str]:
    """The files of one dimension; the run of each generator."""
    monkeypatch.chdir(tmp_path)
    return write_chain((DIM,))


@pytest.fixture
def empty_store(store_template: Path, tmp_path: Path) -> str:
    """Another store, without a run."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(store_template, folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def mend() -> list[str]:
    return reconcile(read_description(DIM))


def held() -> dict[str, dict[str, str]]:
    """The tags of every version, by its number."""
    found = store.client().search_model_versions(f"name = '{NAME}'")
    return {str(version.version): dict(version.tags) for version in found}


def champion() -> str:
    version = versions.named(NAME, versions.ALIAS)
    assert version is not None
    return str(version.version)


def test_every_version_leads_back_and_the_champion_is_what_was_saved(runs: dict[Any, str]) -> None:
    mend()
    found = fetch_champion(DIM)
    assert found.digest == made(DIM, "adapted").digest
    for file in (MODELS / DIM / "adapted").glob("*.safetensors"):
        assert (found.folder / file.name).read_bytes() == file.read_bytes()
    version = versions.find(NAME, found.digest)
    assert version is not None
    assert version.run_id == runs[DIM, "adapted"]
    assert version.tags == read_description(DIM).versions["adapted"].tags


def test_no_champion_says_how_to_make_one(tracking_uri: str) -> None:
    with pytest.raises(UserError, match=r"dti-2d@champion.*dvc repro.*registry.register"):
        fetch_champion("2d")


def test_twice_in_a_row_changes_nothing(runs: dict[Any, str]) -> None:
    assert len(mend()) > 1
    before = held()
    assert mend() == []
    assert held() == before


def test_the_gate_moves_the_alias_and_the_tags(runs: dict[Any, str]) -> None:
    mend()
    ended = store.client().get_run(runs[DIM, "adapted"]).info.end_time
    write_distances(DIM, base=0.1, adapted=0.2)
    mend()
    assert held()[champion()]["kind"] == "base"
    gates = {tags["kind"]: tags["gate"] for tags in held().values()}
    assert gates == {"base": "passed", "adapted": "failed"}
    assert store.client().get_run(runs[DIM, "adapted"]).info.end_time == ended


def test_after_a_revert_the_alias_is_back_and_there_is_no_other_version(
    runs: dict[Any, str], tmp_path: Path
) -> None:
    mend()
    first = champion()
    shutil.copytree("data", tmp_path / "before")
    write_generator(DIM, "adapted", seed=9)
    mend()
    assert len(held()) == 3
    assert champion() != first
    shutil.rmtree("data")
    shutil.copytree(tmp_path / "before", "data")
    mend()
    assert len(held()) == 3
    assert champion() == first
    assert fetch_champion(DIM).digest == made(DIM, "adapted").digest


def test_another_store_gets_the_same_versions_and_stand_ins(
    runs: dict[Any, str], empty_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend()
    here = held()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", empty_store)
    mend()
    assert held() == here
    version = versions.named(NAME, versions.ALIAS)
    assert version is not None
    stand_in = store.client().get_run(version.run_id)
    assert stand_in.info.run_id != runs[DIM, "adapted"]
    assert stand_in.data.tags["source.run"] == runs[DIM, "adapted"]
    assert LINEAGE.items() <= stand_in.data.tags.items()
    assert mend() == []


def test_what_was_changed_by_hand_is_mended(runs: dict[Any, str]) -> None:
    mend()
    right = held()
    client = store.client()
    client.set_model_version_tag(NAME, "1", "digest", "wrong")
    client.set_model_version_tag(NAME, "1", "test.fa_error", "0")
    client.set_model_version_tag(NAME, "1", "test.unheard_of", "1")
    client.delete_model_version_tag(NAME, "2", "gate")
    client.update_model_version(NAME, "2", "wrong")
    client.set_tag(runs[DIM, "base"], "data.data/derivatives", "wrong")
    versions.promote(NAME, "1")
    client.set_model_version_tag(NAME, "1", "approved.by", "a colleague")
    changes = mend()
    right["1"]["approved.by"] = "a colleague"
    assert held() == right
    assert champion() == "2"
    text = client.get_model_version(NAME, "2").description
    assert text == read_description(DIM).versions["adapted"].text
    assert client.get_run(runs[DIM, "base"]).data.tags["data.data/derivatives"] == "d1.dir"
    assert "tags of version 1 set: digest, test.fa_error, test.unheard_of" in changes
    assert "champion is now version 2 (adapted)" in changes


def test_a_run_that_was_deleted_in_mlflow_gets_a_stand_in(runs: dict[Any, str]) -> None:
    store.client().delete_run(runs[DIM, "base"])
    mend()
    assert len(held()) == 2
    assert mend() == []


@pytest.mark.parametrize("step", ["promote", "set_tags", "save_model"])
def test_a_kill_leaves_the_alias_on_a_whole_version(
    runs: dict[Any, str], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend()
    first = champion()
    write_generator(DIM, "adapted", seed=9)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        place = "reconciliation" if step == "save_model" else "versions"
        patch.setattr(f"registry.{place}.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            mend()
    assert champion() == first
    assert fetch_champion(DIM).digest == made(DIM, "adapted").digest
    mend()
    assert len(held()) == 3
    assert fetch_champion(DIM).digest == made(DIM, "adapted", seed=9).digest


def test_two_at_once_make_one_version_each(runs: dict[Any, str]) -> None:
    code = (
        "from registry.description import read_description\n"
        "from registry.reconciliation import reconcile\n"
        f"print(len(reconcile(read_description({DIM!r}))))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    changes = [int(one.communicate(timeout=300)[0]) for one in both]
    assert sorted(changes)[0] == 0
    assert sorted(held()) == ["1", "2"]
    assert champion() == "2"


def test_a_race_on_a_server_leaves_one_version(
    runs: dict[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a lock: the other process registers between our look and our version."""
    real = versions.find
    looked: list[str] = []

    def late(name: str, digest: str, uri: str | None = None) -> Any:
        if digest not in looked:
            looked.append(digest)
            with monkeypatch.context() as patch:
                patch.setattr(versions, "find", real)
                mend()
            return None
        return real(name, digest, uri)

    monkeypatch.setattr(versions, "one_at_a_time", nullcontext)
    monkeypatch.setattr(versions, "find", late)
    mend()
    assert sorted(held()) == ["1", "2"]


def test_the_record_is_the_same_everywhere_and_is_left_alone(
    tracking_uri: str, empty_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_chain()
    register()
    before = REGISTRY.stat()
    text = REGISTRY.read_text()
    register()
    assert REGISTRY.stat() == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", empty_store)
    REGISTRY.unlink()
    register()
    assert REGISTRY.read_text() == text
    assert sorted(path.name for path in REPORTS.glob("registry*")) == ["registry.json"]
