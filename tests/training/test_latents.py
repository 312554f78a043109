"""A latent generator: trained, stopped, saved, sampled, adapted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.errors import UserError
from models.adapters.adapter import ADAPTER_FILE, apply
from models.config import LatentConfig, NetworkConfig, PathConfig
from models.generator import Generator
from models.latent import LatentPrior
from models.prior import Prior
from models.stored import LATENT_FILE
from services.tracking import start_run
from tests.models.tiny import SPACE
from tests.training.tiny_cohort import write_cohort
from training import dataset
from training.adapt import AdaptData, adapt_generator
from training.ceiling import ceiling
from training.framing import Framed
from training.latents import latent_prior
from training.settings import (
    AdaptSettings,
    HeldOutSettings,
    LatentSettings,
    LoopSettings,
    TrainSettings,
)
from training.train import framed, train, untrained

LATENT = LatentSettings(
    LatentConfig(channels=(16,), latents=4, patch=2),
    LoopSettings(steps=12, batch=2, warmup=2, checkpoint_every=4, seed=1),
)
SETTINGS = TrainSettings(
    NetworkConfig(channels=(16, 16), patch=1),
    PathConfig(),
    LoopSettings(steps=6, batch=2, warmup=2, checkpoint_every=2, seed=3),
    latent=LATENT,
)
PEOPLE = [Condition(25, "F"), Condition(50, "M"), Condition(80, "F")]


@pytest.fixture
def project(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    data = tmp_path / "data"
    write_cohort(data, 44)
    split = json.loads((data / "split.json").read_text())
    ids = split["groups"]["base"]["train"]
    split["groups"] = {
        "base": {"train": ids[:16], "val": ids[16:24], "test": []},
        "target": {"train": ids[24:36], "val": ids[36:], "test": []},
    }
    (data / "split.json").write_text(json.dumps(split))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def subjects(project: Path, part: str = "train") -> dataset.Subjects:
    return dataset.load(project / "data/derivatives", project / "data/split.json", "base", part)


def test_the_stage_trains_saves_and_reports(project: Path) -> None:
    train("3d", SETTINGS)
    generator = Generator.load(project / "data/models/3d/base")
    assert generator.config.latent == LATENT.autoencoder
    assert isinstance(generator.prior, LatentPrior)
    volumes = generator.sample(PEOPLE, [1, 2, 3], 3)
    assert volumes.shape == (3, 2, *SPACE.shape)
    np.testing.assert_array_equal(volumes[1:], generator.sample(PEOPLE[1:], [2, 3], 3))
    report = json.loads((project / "data/reports/train-3d.json").read_text())["ceiling"]
    assert report["subjects"] == 8
    assert report["fa_error"] > 0
    assert report["md_error"] < 1e-3  # mm2/s


def test_a_stopped_autoencoder_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("3d", SETTINGS)
    whole = Generator.load(project / "data/models/3d/base").digest

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # After the checkpoint of the autoencoder's step 12, before its latents have a prior.
    with monkeypatch.context() as patch:
        patch.setattr("training.latents._spread", stop)
        with pytest.raises(KeyboardInterrupt):
            train("3d", SETTINGS)
    train("3d", SETTINGS)
    assert Generator.load(project / "data/models/3d/base").digest == whole


def seen(part: dataset.Subjects, work: Path) -> Framed:
    return framed(SETTINGS, part, part.encoded(), work / "frame")


def test_latents_of_the_training_subjects_have_sd_one(project: Path, tmp_path: Path) -> None:
    part = subjects(project)
    generator = untrained("3d", SETTINGS, part, seen(part, tmp_path), tmp_path / "w")
    latents = np.load(tmp_path / "w" / "latents.npy")
    np.testing.assert_allclose(latents.std(axis=(0, 2, 3, 4)), 1, atol=1e-4)
    prior = generator.prior
    assert isinstance(prior, LatentPrior)
    encoded, who = part.encoded(), part.conditions
    # One by one: a batch of another size may round otherwise.
    expected = np.concatenate(
        [prior.residual(encoded[i : i + 1], who[i : i + 1]) for i in range(len(who))]
    )
    residuals = seen(part, tmp_path).residuals(prior, part.conditions, tmp_path / "r")
    np.testing.assert_allclose(residuals.residual, expected, atol=1e-4)


def test_saved_and_loaded_is_the_same_and_a_changed_autoencoder_is_noticed(
    project: Path, tmp_path: Path
) -> None:
    part = subjects(project)
    generator = untrained("3d", SETTINGS, part, seen(part, tmp_path), tmp_path / "w")
    generator.save(tmp_path / "one")
    loaded = Generator.load(tmp_path / "one")
    assert loaded.digest == generator.digest
    assert loaded.config == generator.config
    np.testing.assert_array_equal(loaded.sample(PEOPLE, [1, 2, 3], 2),
                                  generator.sample(PEOPLE, [1, 2, 3], 2))  # fmt: skip
    longer = replace(SETTINGS, latent=replace(LATENT, loop=replace(LATENT.loop, steps=13)))
    untrained("3d", longer, part, seen(part, tmp_path), tmp_path / "v").save(tmp_path / "two")
    (tmp_path / "two" / LATENT_FILE).replace(tmp_path / "one" / LATENT_FILE)
    with pytest.raises(UserError, match="is not what was saved"):
        Generator.load(tmp_path / "one")


def nothing_known(prior: Prior, people: Sequence[Condition]) -> np.ndarray:
    return prior.volume(np.zeros((len(people), *prior.scale.shape), dtype=np.float32), people)


def test_the_ceiling_of_a_lossless_autoencoder_is_the_prior_s(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, val = subjects(project), subjects(project, "val")
    generator = untrained("3d", SETTINGS, part, seen(part, tmp_path), tmp_path / "w")
    # Nothing is lost on the way but what the two priors cut at 3 standard deviations.
    monkeypatch.setattr(LatentPrior, "residual", lambda self, v, c: self.voxels.residual(v, c))
    monkeypatch.setattr(LatentPrior, "volume", lambda self, r, c: self.voxels.volume(r, c))
    lossless = ceiling(generator, part, val)
    monkeypatch.setattr(LatentPrior, "volume", lambda self, r, c: nothing_known(self.voxels, c))
    nothing = ceiling(generator, part, val)
    assert lossless["fa_error"] < 0.8 * nothing["fa_error"]
    assert lossless["kernel_distance_real"] == nothing["kernel_distance_real"]


def test_an_adapter_of_a_latent_generator(project: Path, tmp_path: Path, tracking_uri: str) -> None:
    train("3d", SETTINGS)
    base = project / "data/models/3d/base"
    data = AdaptData.load(project / "data/derivatives", project / "data/split.json")
    settings = AdaptSettings(rank=2, steps=4, batch=2)
    with start_run("tests", "adapt", {}, {}, key="adapt", uri=tracking_uri) as run:
        adapt_generator(
            base, tmp_path / "out", settings, HeldOutSettings(4, 2), data, tmp_path / "work", run
        )
    adapted = Generator.load(tmp_path / "out")
    again = apply(tmp_path / "out" / ADAPTER_FILE, Generator.load(base))
    np.testing.assert_allclose(
        again.sample(PEOPLE[:2], [1, 2], 2), adapted.sample(PEOPLE[:2], [1, 2], 2), atol=1e-5
    )
    assert not np.array_equal(adapted.prior.gain, Generator.load(base).prior.gain)


def test_what_latents_cannot_do_is_told(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="latents are for 3D alone"):
        train("2d", SETTINGS)
    part = subjects(project)
    large = replace(LATENT, autoencoder=LatentConfig(channels=(16, 16, 16, 16)))
    voxels = untrained(
        "3d", replace(SETTINGS, latent=None), part, seen(part, tmp_path), tmp_path
    ).prior.start  # fmt: skip
    with pytest.raises(UserError, match="do not tile"):
        latent_prior(voxels, seen(part, tmp_path).standard, part.conditions, large, tmp_path, print)
