"""A registered adapted generator is an adapter; its base is another version, and comes with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.errors import UserError
from models.adapters.adapted import AdaptedGenerator, load
from models.config import Dim
from registry import versions
from registry.champion import fetch_adapter, fetch_champion
from registry.description import read_description
from registry.reconciliation import reconcile
from services.tracking import store
from tests.registry.chain import made, write_chain, write_distances, write_generator

DIM: Dim = "3d"
NAME = versions.model_name(DIM)
WHO = ([Condition(40, "F")], [11], 2)


@pytest.fixture
def registered(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base and an adapted generator in the store, and no file of theirs elsewhere."""
    monkeypatch.chdir(tmp_path)
    write_chain((DIM,))
    reconcile(read_description(DIM))
    shutil.copytree("data", "kept")
    shutil.rmtree("data")


def test_the_champion_comes_with_its_base_to_another_machine(registered: None) -> None:
    found = fetch_champion(DIM)
    files = {path.name for path in found.folder.iterdir()}
    assert files == {"generator.json", "adapter.safetensors", "run.json"}
    generator = load(found.folder)
    assert generator.digest == found.digest
    np.testing.assert_array_equal(generator.sample(*WHO), made(DIM, "adapted").sample(*WHO))
    version = versions.named(NAME, versions.ALIAS)
    assert version is not None
    base = versions.find(NAME, version.tags["base.digest"])
    assert base is not None
    assert base.tags["digest"] == made(DIM, "base").digest


def test_a_fetch_that_was_stopped_brings_the_base_the_next_time(
    registered: None, tmp_path: Path
) -> None:
    folder = fetch_champion(DIM).folder
    shutil.rmtree(folder.with_name(f"{NAME}-{made(DIM, 'base').digest}"))
    assert load(fetch_champion(DIM).folder).digest == made(DIM, "adapted").digest


def test_a_base_that_is_not_registered_is_told_and_register_brings_it(registered: None) -> None:
    base = versions.find(NAME, made(DIM, "base").digest)
    assert base is not None
    store.client().delete_model_version(NAME, str(base.version))
    with pytest.raises(UserError, match=r"adapts the base \w+, which is not .*registry.register"):
        fetch_champion(DIM)
    shutil.copytree("kept", "data")
    assert f"version 3 (base-{DIM}) added" in reconcile(read_description(DIM))
    assert load(fetch_champion(DIM).folder).digest == made(DIM, "adapted").digest


def test_an_adapter_goes_by_its_alias_and_its_number(registered: None) -> None:
    shutil.copytree("kept", "data")
    write_generator(DIM, "adapted", seed=2)
    write_distances(DIM, base=0.1, adapted=0.2)
    reconcile(read_description(DIM))
    assert fetch_champion(DIM).digest == made(DIM, "base").digest
    base = load(fetch_champion(DIM).folder)
    for label, seed in (("target", 2), ("3", 2), ("2", 1)):
        found = fetch_adapter(DIM, label)
        generator = load(found.folder, base)
        assert isinstance(generator, AdaptedGenerator)
        assert generator.base is base
        assert found.digest == generator.digest == made(DIM, "adapted", seed).digest


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("nobody", "no such version"),
        ("9", "no such version"),
        ("no/name", "no such version"),
        ("base", "a generator without adapter"),
    ],
)
def test_what_is_no_adapter_is_told_with_those_there_are(
    registered: None, label: str, told: str
) -> None:
    with pytest.raises(UserError, match=rf"'{label}'.*there are: champion, target, 2\).*{told}"):
        fetch_adapter(DIM, label)


def test_no_model_at_all_is_told(tracking_uri: str) -> None:
    with pytest.raises(UserError, match=r"there are: none\).*no such version"):
        fetch_adapter(DIM, "target")


def test_an_adapter_of_another_base_is_refused_before_anything_is_registered(
    registered: None,
) -> None:
    shutil.copytree("kept", "data")
    other = made("2d", "base")
    other.save(Path("data/models") / DIM / "base")
    with pytest.raises(UserError, match="load the base it was trained on, or adapt again"):
        read_description(DIM)
