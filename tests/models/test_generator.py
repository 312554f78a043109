"""A generator's promises: seeds, files, units."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cohort import channels
from contracts.condition import Condition
from contracts.errors import UserError
from models.checkpoint import PRIOR_FILE, WEIGHTS_FILE
from models.config import Dim, SamplerName
from models.generator import CONFIG_FILE, Generator
from models.generator_config import FORMAT
from models.prior.prior import Prior
from models.prior.stationary import StationaryField
from tests.models.bent import bent_generator
from tests.models.tiny import DDPM, tiny_generator

PEOPLE = [Condition(25, "F"), Condition(50, "M"), Condition(80, "F")]


@pytest.fixture(scope="module", params=["2d", "3d"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return tiny_generator(request.param)


@pytest.mark.parametrize("sampler", ["dpm++", "ancestral"])
def test_a_sample_depends_on_its_own_seed_alone(generator: Generator, sampler: SamplerName) -> None:
    def draw(people: list[Condition], seeds: list[int]) -> np.ndarray:
        return generator.sample(people, seeds, steps=3, sampler=sampler)

    together = draw(PEOPLE, [7, 8, 9])
    alone = np.concatenate([draw([c], [s]) for c, s in zip(PEOPLE, [7, 8, 9])])  # noqa: B905
    np.testing.assert_array_equal(together, draw(PEOPLE[::-1], [9, 8, 7])[::-1])
    np.testing.assert_array_equal(together, alone)
    assert not np.array_equal(together[0], draw([PEOPLE[0]], [8])[0])


def test_the_brain_of_a_sample_does_not_depend_on_others_either() -> None:
    """To the last bit; brains differ in shape here."""
    generator = bent_generator("3d")
    together, turned = (generator.sample(PEOPLE[:2][::k], [1, 2][::k], 1) for k in (1, -1))
    alone = [generator.sample([c], [s], 1)[0] for c, s in zip(PEOPLE[:2], [1, 2], strict=True)]
    np.testing.assert_array_equal(np.stack(alone), together)
    np.testing.assert_array_equal(turned[::-1], together)
    assert ((together[0, 1] > 0) != (together[1, 1] > 0)).any()


def test_the_sampler_is_its_own_unless_another_is_asked_for(generator: Generator) -> None:
    own, other = (
        generator.sample(PEOPLE[:1], [7], 3, sampler=name)
        for name in (generator.config.diffusion.sampler, "ancestral")
    )
    np.testing.assert_array_equal(own, generator.sample(PEOPLE[:1], [7], 3))
    assert not np.array_equal(own, other)


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_an_untrained_generator_of_the_flow_draws_from_its_prior(dim: Dim) -> None:
    """Of the seed's white noise the first numbers make the shape, the next ones the maps. (In one
    step: at the edge of the mask the steps show.)"""
    generator = bent_generator(dim)
    prior, basis = generator.prior, generator.denoiser.basis
    rng = np.random.default_rng(4)
    of_shape, of_maps = (
        rng.standard_normal((1, *shape), dtype=np.float32)
        for shape in (prior.shape_field.noise_shape, (prior.map_count, *prior.mask.shape))
    )
    brain = prior.expected(prior.draw_shapes(of_shape, PEOPLE[:1]), PEOPLE[:1])
    field = basis.inverse(basis(torch.from_numpy(of_maps)) * basis.power.sqrt()).numpy()
    expected = channels.decode(prior.volumes(field, brain), generator.maps)
    found = generator.sample(PEOPLE[:1], [4], 1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("sampler", ["dpm++", "ancestral"])
def test_ddpm_is_saved_loaded_and_sampled(sampler: SamplerName, tmp_path: Path) -> None:
    generator = tiny_generator("2d", path=replace(DDPM, sampler=sampler))
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path)
    assert loaded.config.diffusion == generator.config.diffusion
    volumes = loaded.sample(PEOPLE, [1, 2, 3], steps=5)
    assert np.isfinite(volumes).all()
    np.testing.assert_array_equal(volumes, generator.sample(PEOPLE, [1, 2, 3], steps=5))


def test_another_format_is_told(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path)
    content = json.loads((tmp_path / CONFIG_FILE).read_text())
    content["identity"]["format"] -= 1
    (tmp_path / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=f"generator format {FORMAT - 1} is not {FORMAT}: .* train it again"
    ):
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


def test_every_part_of_the_prior_is_kept_in_files(generator: Generator, tmp_path: Path) -> None:
    prior = changed_prior(generator.prior)
    Generator(generator.config, prior, generator.denoiser).save(tmp_path)
    found = Generator.load(tmp_path).prior
    assert found.template.arrays().keys() == prior.template.arrays().keys()
    for name, array in prior.template.arrays().items():
        np.testing.assert_array_equal(found.template.arrays()[name], array, err_msg=name)
    for field in ("power", "modes", "variance"):
        one, other = (getattr(p.map_covariance, field) for p in (found, prior))
        np.testing.assert_array_equal(one, other, err_msg=field)
    np.testing.assert_array_equal(found.shape_field.power, prior.shape_field.power)
    for field in ("coefficients", "scale", "site_gain", "sites", "outline_sigma", "mean_shift"):
        np.testing.assert_array_equal(getattr(found, field), getattr(prior, field), err_msg=field)


def changed_prior(prior: Prior) -> Prior:
    """A prior with a gain, a smoother outline and a shift of the mean."""
    shift = np.full((len(prior.scale), 2, 2, 2), 0.25, dtype=np.float32)
    gain = np.array([1.1, 0.9, 1], dtype=np.float32)
    return replace(prior, site_gain=gain, outline_sigma=0.7, mean_shift=shift)


def test_digest_sees_each_part_of_the_prior(generator: Generator) -> None:
    prior, other = generator.prior, changed_prior(generator.prior)
    maps, template = prior.map_covariance, prior.template
    changes: list[dict[str, Any]] = [
        {name: getattr(other, name)} for name in ("site_gain", "outline_sigma", "mean_shift")
    ]
    changes += [
        {"coefficients": prior.coefficients + 1},
        {"scale": 2 * prior.scale},
        {"map_covariance": replace(maps, power=2 * maps.power)},
        {"shape_field": StationaryField(2 * prior.shape_field.power)},
        {"template": replace(template, image=template.image + 1)},
        {"template": replace(template, sigma=2 * template.sigma)},
    ]
    made = [
        Generator(generator.config, replace(prior, **change), generator.denoiser).digest
        for change in changes
    ]
    assert len({generator.digest, *made}) == len(changes) + 1


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
