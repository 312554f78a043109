"""A base with any registered adapter, by name and at any strength, from one base in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from contracts.errors import UserError
from contracts.paths import MODELS
from models.config import Dim
from models.generator import Generator
from registry.description import read_description
from registry.reconciliation import reconcile
from serving import cohort
from serving.messages import sample_request
from serving.replay import replay
from serving.sample import main
from serving.sampling import champion_model, folder_model, sample
from tests.registry.chain import made, write_chain, write_distances, write_generator
from tests.serving.conftest import started

DIM: Dim = "3d"
ASKED: dict[str, Any] = {"dim": DIM, "age": 40, "sex": "F", "seed": 1, "steps": 2}


@pytest.fixture
def registered(tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions 1 (base), 2 and 3 (adapted, of two seeds; 3 is `target` and champion)."""
    monkeypatch.chdir(tmp_path)
    write_chain((DIM,))
    reconcile(read_description(DIM))
    write_generator(DIM, "adapted", seed=2)
    reconcile(read_description(DIM))


@pytest.fixture
def client(registered: None) -> Iterator[TestClient]:
    with started() as running:
        yield running


def asked(client: TestClient, **values: Any) -> tuple[bytes, dict[str, Any]]:
    answer = client.post("/sample", json={**ASKED, **values})
    assert answer.status_code == 200, answer.text
    return answer.content, json.loads(answer.headers["x-recipe"])


def made_here(kind: str, seed: int = 1, strength: float = 1.0) -> str:
    """The digest of what the registry has."""
    generator: Any = made(DIM, "base" if kind == "base" else "adapted", seed)
    return str((generator if strength == 1 else generator.at(strength)).digest)


def test_the_service_gives_every_adapter_at_every_strength(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    real = Generator.load.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Generator], folder: Path) -> Generator:
        loads.append(folder)
        found: Generator = real(cls, folder)
        return found

    monkeypatch.setattr(Generator, "load", classmethod(counted))
    champion, recipe = asked(client)
    assert recipe["ModelDigest"] == made_here("adapted", 2)
    assert "Adapter" not in recipe
    older, recipe = asked(client, adapter="2")
    assert (recipe["Adapter"], recipe["ModelVersion"]) == ("2", "2")
    assert recipe["ModelDigest"] == made_here("adapted", 1)
    _, recipe = asked(client, adapter="target")
    assert (recipe["Adapter"], recipe["ModelDigest"]) == ("3", made_here("adapted", 2))
    beyond, recipe = asked(client, adapter="2", strength=1.5)
    assert (recipe["Strength"], recipe["ModelDigest"]) == (1.5, made_here("adapted", 1, 1.5))
    assert len({champion, older, beyond}) == 3
    assert asked(client, adapter="2")[0] == older
    assert asked(client)[0] == champion
    assert not loads, "the base was loaded again"


def test_strength_zero_is_the_base(registered: None) -> None:
    model, base = champion_model(DIM), folder_model(MODELS / DIM / "base")
    for values in ({"strength": 0}, {"adapter": "2", "strength": 0}):
        volume = sample(model, sample_request({**ASKED, **values})).volume
        plain = sample(base, sample_request(ASKED)).volume
        # The headers differ by their recipes.
        assert values_of(volume) == values_of(plain)


def values_of(packed: bytes) -> bytes:
    import gzip

    import nibabel as nib
    import numpy as np

    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(packed)).dataobj).tobytes()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"adapter": "nobody"}, ["nobody", "champion, target, 2, 3", "no such version"]),
        ({"adapter": "base"}, ["a generator without adapter"]),
        ({"adapter": ""}, ["validation error"]),
        ({"adapter": "target", "strength": -1}, ["validation error"]),
        ({"strength": 3.5}, ["validation error"]),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_told(
    client: TestClient, values: dict[str, Any], told: list[str]
) -> None:
    answer = client.post("/sample", json={**ASKED, **values})
    assert answer.status_code == 400
    assert all(words in answer.json()["error"] for words in told)


def test_a_base_has_no_strength_but_takes_adapters(registered: None) -> None:
    write_distances(DIM, base=0.1, adapted=0.2)
    reconcile(read_description(DIM))
    model = champion_model(DIM)
    assert model.digest == made_here("base")
    with pytest.raises(UserError, match=r"strength 0\.5 needs an adapter"):
        sample(model, sample_request({**ASKED, "strength": 0.5}))
    adapted = sample(model, sample_request({**ASKED, "adapter": "target"}))
    assert adapted.recipe["ModelDigest"] == made_here("adapted", 2)


def test_a_folder_has_its_own_adapter_at_any_strength_and_no_others(registered: None) -> None:
    model = folder_model(MODELS / DIM / "adapted")
    half = sample(model, sample_request({**ASKED, "strength": 0.5}))
    assert half.recipe["ModelDigest"] == made_here("adapted", 2, 0.5)
    with pytest.raises(UserError, match="a name in the registry"):
        sample(model, sample_request({**ASKED, "adapter": "target"}))


def test_an_adapter_of_an_earlier_base_is_told(registered: None) -> None:
    model = champion_model(DIM)
    other = made("3d", "base").with_provenance({})
    for weight in other.denoiser.network.parameters():
        weight.data *= 1.01
    assert model.adapters is not None
    earlier = type(model.adapters)(other)
    with pytest.raises(UserError, match=rf"this one is {other.digest}"):
        earlier.get("target")


def test_a_volume_is_replayed_after_the_alias_has_moved(registered: None, tmp_path: Path) -> None:
    request = sample_request({**ASKED, "adapter": "target", "strength": 0.5})
    path = sample(champion_model(DIM), request).save(tmp_path / "fa.nii.gz")
    write_generator(DIM, "adapted", seed=3)
    reconcile(read_description(DIM))
    assert replay(path).difference == 0
    other = sample(champion_model(DIM), request)
    assert other.recipe["ModelDigest"] == made_here("adapted", 3, 0.5)


def test_the_command_lines_take_an_adapter_and_name_it(registered: None, tmp_path: Path) -> None:
    words = ["--age", "40", "--sex", "F", "--steps", "1", "--adapter", "2", "--strength", "0.5"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("sub-synth3dadapter2strength0p5age40sexFseed0_")
    words = ["--count", "1", "--steps", "1", "--adapter", "2", "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(cohort.main, words)
    assert done.exit_code == 0, done.output
    record = json.loads(next((tmp_path / "out").rglob("*_dwimap.json")).read_text())
    assert (record["Adapter"], record["ModelDigest"]) == ("2", made_here("adapted", 1))
