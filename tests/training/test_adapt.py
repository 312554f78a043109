"""The stage `adapt`: what it writes is the adapter alone, and makes the generator it trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.condition import Condition
from models.adapters.adapted import AdaptedGenerator, load
from models.generator import Generator
from services.tracking import store
from tests.cohort.tiny import write_cohort
from tests.models.tiny import tiny_generator
from training import loop
from training.adapt import adapt
from training.settings import AdaptSettings, HeldOutSettings

WHO = ([Condition(40, "F")], [11], 2)
FOLDER = Path("data/models/3d/adapted")
SETTINGS = AdaptSettings(settings={"rank": 2}, steps=2, site_gain=False, learning_rate=0.05)


@pytest.fixture
def project(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base and subjects of the target group; the working directory."""
    write_cohort(tmp_path / "data")
    split = tmp_path / "data/split.json"
    content = json.loads(split.read_text())
    ids = content["groups"]["base"]["train"]
    content["groups"]["base"]["train"] = ids[12:]
    content["groups"]["target"] = {"train": ids[:8], "val": ids[8:12], "test": []}
    split.write_text(json.dumps(content))
    tiny_generator("3d").with_provenance({"stage": "train"}).save(tmp_path / "data/models/3d/base")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_the_adapter_alone_and_this_makes_what_was_trained(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: dict[str, Any] = {}
    real = loop.fit

    def watched(denoiser: Any, *arguments: Any) -> Any:
        found = real(denoiser, *arguments)
        trained.update(denoiser=denoiser)
        return found

    monkeypatch.setattr(loop, "fit", watched)
    adapt("3d", SETTINGS, HeldOutSettings(samples=4, steps=1))

    names = {path.name for path in FOLDER.iterdir()}
    assert names == {"generator.json", "adapter.safetensors", "run.json"}
    base = Generator.load(FOLDER.with_name("base"))
    found = load(FOLDER)
    assert isinstance(found, AdaptedGenerator)
    assert found.prior.mean_shift is not None
    expected = Generator(base.config, found.prior, trained["denoiser"]).sample(*WHO)
    np.testing.assert_array_equal(found.sample(*WHO), expected)
    assert np.abs(expected - base.sample(*WHO)).max() > 1e-4

    assert found.base.digest == found.provenance["base"] == base.digest
    assert found.provenance["stage"] == "adapt"
    assert "data.data/models/3d/base" in found.provenance
    scores = json.loads(Path("data/reports/adapt-3d.json").read_text())
    (part,) = found.adapters
    assert part.file.scores["val_regional_distance"] == scores["val_regional_distance_adapted"]
    assert scores["adapter_bytes"] == (FOLDER / "adapter.safetensors").stat().st_size
    record = json.loads((FOLDER / "run.json").read_text())
    tags = store.client().get_run(record["run_id"]).data.tags
    assert (tags["digest"], tags["base"]) == (found.digest, base.digest)
