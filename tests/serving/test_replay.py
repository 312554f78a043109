"""An exported volume can be made again from its header alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts import volume
from contracts.errors import UserError
from models.config import Dim
from registry.champion import Fetched
from serving.messages import sample_request
from serving.replay import read_recipe, replay, request_of
from serving.sampling import champion_model, folder_model, sample
from tests.serving.conftest import SPACE, tiny_generator

REQUEST = sample_request(
    {"dim": "2d", "age": 33.3, "sex": "M", "seed": 5, "steps": 2, "map": "md", "count": 2}
)


@pytest.fixture
def exported(folders: dict[Dim, Path], tmp_path: Path) -> Path:
    return sample(folder_model(folders["2d"]), REQUEST).save(tmp_path / "md.nii.gz")


def test_the_recipe_leads_back_to_the_request(exported: Path) -> None:
    assert request_of(read_recipe(exported)) == REQUEST


def test_the_same_generator_gives_the_same_bits(exported: Path, folders: dict[Dim, Path]) -> None:
    again = replay(exported, folders["2d"])
    assert again.difference == 0
    assert again.sample.volume == exported.read_bytes()


def test_the_champion_replays_its_own(exported: Path, champions: dict[Dim, Fetched]) -> None:
    made = sample(champion_model("2d"), REQUEST).save(exported)
    assert replay(made).sample.volume == made.read_bytes()


def test_another_generator_is_refused(exported: Path, tmp_path: Path) -> None:
    other = tiny_generator("2d")
    for weight in other.denoiser.network.parameters():
        weight.data *= 1.01
    other.save(tmp_path / "other")
    with pytest.raises(UserError, match="which made the volume"):
        replay(exported, tmp_path / "other")


def test_changed_values_are_found(exported: Path, folders: dict[Dim, Path]) -> None:
    values, _ = volume.read(exported)
    recipe = read_recipe(exported)
    values[5, 5, 5, 0] += np.float32(1e-4)
    volume.write(exported, values, SPACE, recipe)
    with pytest.raises(UserError, match="differs from its replay by up to"):
        replay(exported, folders["2d"])


def test_a_volume_without_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "real.nii.gz"
    volume.write(path, np.zeros(SPACE.shape, dtype=np.float32), SPACE)
    with pytest.raises(UserError, match="carries no recipe"):
        replay(path)


def test_an_incomplete_recipe_is_refused(exported: Path) -> None:
    recipe = read_recipe(exported)
    for key in ("Age", "Seeds", "ModelDigest", "Threads"):
        left = {k: v for k, v in recipe.items() if k != key}
        volume.write(exported, np.zeros(SPACE.shape, dtype=np.float32), SPACE, left)
        with pytest.raises(UserError, match=key):
            replay(exported)
