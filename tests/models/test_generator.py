"""A generator's promises: seeds, files, units."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models.stored import PRIOR_FILE, WEIGHTS_FILE

from contracts.condition import Condition
from contracts.errors import UserError
from models.config import PathConfig, SamplerName
from models.generator import CONFIG_FILE, Generator
from tests.models.tiny import tiny_generator

PEOPLE = [Condition(25, "F"), Condition(50, "M"), Condition(80, "F")]


@pytest.fixture(scope="module", params=["2d", "3d"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return tiny_generator(request.param)


@pytest.mark.parametrize("sampler", ["dpm++", "ddim", "ancestral"])
def test_a_sample_depends_on_its_own_seed_alone(generator: Generator, sampler: SamplerName) -> None:
    def draw(people: list[Condition], seeds: list[int]) -> np.ndarray:
        return generator.sample(people, seeds, steps=3, sampler=sampler)

    together = draw(PEOPLE, [7, 8, 9])
    alone = np.concatenate([draw([c], [s]) for c, s in zip(PEOPLE, [7, 8, 9])])  # noqa: B905
    np.testing.assert_array_equal(together, draw(PEOPLE[::-1], [9, 8, 7])[::-1])
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(together[0], draw([PEOPLE[0]], [8])[0])


def test_samplers_agree_on_where_they_start_and_differ_on_the_way(generator: Generator) -> None:
    one, other = (generator.sample(PEOPLE[:1], [7], 3, sampler=s) for s in ("dpm++", "ddim"))
    np.testing.assert_array_equal(one, generator.sample(PEOPLE[:1], [7], 3))  # its own
    assert not np.array_equal(one, other)
    one, other = (generator.sample(PEOPLE[:1], [7], 1, sampler=s) for s in ("dpm++", "ddim"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("path", ["flow", "linear", "scaled_linear", "cosine"])
def test_an_untrained_generator_draws_from_the_gaussian_whatever_the_path(path: str) -> None:
    """The same volume for a seed. (In one step: at the rim of the mask the steps show.)"""
    expected = tiny_generator("3d", trained=False).sample(PEOPLE[:1], [4], 1)
    config = PathConfig(path=path, prediction="v", sampler="ddim")  # type: ignore[arg-type]
    found = tiny_generator("3d", trained=False, path=config).sample(PEOPLE[:1], [4], 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_plain_ddpm_is_saved_loaded_and_sampled(tmp_path: Path) -> None:
    config = PathConfig(path="cosine", prediction="epsilon", start="none", sampler="ancestral")
    generator = tiny_generator("2d", path=config)
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path)
    assert loaded.config.path == config
    volumes = loaded.sample(PEOPLE, [1, 2, 3], steps=5)
    assert np.isfinite(volumes).all()
    np.testing.assert_array_equal(volumes, generator.sample(PEOPLE, [1, 2, 3], steps=5))


def test_another_format_is_told(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path)
    content = json.loads((tmp_path / CONFIG_FILE).read_text())
    content["identity"]["format"] -= 1
    (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match="generator format 6 is not 7"):
        Generator.load(tmp_path)


def test_the_number_of_threads_changes_rounding_alone(generator: Generator) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = generator.sample(PEOPLE[:1], [3], steps=2)
        torch.set_num_threads(2)
        two = generator.sample(PEOPLE[:1], [3], steps=2)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_samples_are_physical(generator: Generator) -> None:
    volumes = generator.sample(PEOPLE, [1, 2, 3], steps=2)
    assert volumes.dtype == np.float32
    assert volumes.shape == (3, 2, *generator.space.shape)
    assert volumes.min() >= 0
    assert volumes[:, 0].max() <= 1
    assert volumes[:, 1].max() <= 3.2e-3
    empty = volumes[:, 1] == 0
    assert (volumes[:, 0][empty] == 0).all()


def test_conditions_and_seeds_must_pair_up(generator: Generator) -> None:
    with pytest.raises(ValueError, match="one seed per condition, got 2, 1"):
        generator.sample(PEOPLE[:2], [1])


def test_saved_and_loaded_is_the_same(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path)
    assert loaded.digest == generator.digest
    assert loaded.config == generator.config
    np.testing.assert_array_equal(
        loaded.sample(PEOPLE[:1], [5], 2), generator.sample(PEOPLE[:1], [5], 2)
    )
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_digest_sees_weights_but_not_provenance(generator: Generator) -> None:
    assert generator.with_provenance({"run": "x"}).digest == generator.digest
    assert tiny_generator(generator.dim, seed=1).digest != generator.digest


@pytest.mark.parametrize("name", [WEIGHTS_FILE, PRIOR_FILE])
def test_a_file_cut_short_is_told_in_one_line(
    generator: Generator, tmp_path: Path, name: str
) -> None:
    generator.save(tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot be read") as told:
        Generator.load(tmp_path)
    assert "\n" not in str(told.value)


def test_other_weights_under_the_same_config_are_noticed(
    generator: Generator, tmp_path: Path
) -> None:
    generator.save(tmp_path)
    tiny_generator(generator.dim, seed=1).save(tmp_path / "other")
    (tmp_path / "other" / WEIGHTS_FILE).replace(tmp_path / WEIGHTS_FILE)
    with pytest.raises(UserError, match="is not what was saved"):
        Generator.load(tmp_path)


def test_no_generator_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        Generator.load(tmp_path)
