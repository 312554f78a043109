"""What is left out is left out, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks import ablation
from benchmarks.brains import RegisteredSubjects
from benchmarks.contestants import prepared
from benchmarks.pictures import nearest
from benchmarks.recipes.budget import Budget
from cohort.interpolation import displaced
from cohort.subjects import Subjects
from contracts.condition import Condition
from contracts.maps import MAPS
from contracts.params import load
from models.generator import Generator
from tests.benchmarks.test_generators import PARAMS
from tests.cohort.tiny import BENT_SPACE, bent_brains
from training.settings import TrainSettings

PEOPLE = [Condition(25, "F"), Condition(80, "M")]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    """Subjects that differ in shape, and by a factor on their maps."""
    volumes, masks, conditions = bent_brains(24)
    factors = np.random.default_rng(0).uniform(0.7, 1.3, (24, 2, 1, 1, 1))
    volumes = (volumes * factors).astype(np.float32)
    ids = tuple(f"sub-{i:03d}" for i in range(24))
    return Subjects(ids, MAPS, volumes, masks, tuple(conditions), BENT_SPACE, "bent")


@pytest.fixture(scope="module")
def ready(
    subjects: Subjects, params: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Generator, RegisteredSubjects]:
    settings = load(TrainSettings, "train.3d", params)
    return prepared("3d", settings, subjects, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def whole(ready: tuple[Generator, RegisteredSubjects]) -> Generator:
    return ready[0]


@pytest.fixture(scope="module")
def seen(ready: tuple[Generator, RegisteredSubjects]) -> RegisteredSubjects:
    return ready[1]


def noise(generator: Generator) -> np.ndarray:
    """White noise of the shapes of the two people."""
    shape = (2, *generator.prior.shape_field.noise_shape)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def shapes(generator: Generator) -> np.ndarray:
    """Random shapes of the two people."""
    return generator.prior.draw_shapes(noise(generator), PEOPLE)


def test_without_displacements_brains_are_not_bent_but_differ_in_outline(
    whole: Generator, seen: RegisteredSubjects
) -> None:
    straight = ablation._without_displacements(whole, seen)
    bent, unbent = shapes(whole), shapes(straight)
    assert np.abs(bent[:, 1:]).max() > 0.1
    assert np.abs(unbent[:, 1:]).max() < 1e-4
    assert np.ptp(unbent[:, 0], axis=0).max() > 0.1
    maps = slice(0, whole.prior.map_count + 1)
    np.testing.assert_array_equal(straight.prior.scale[maps], whole.prior.scale[maps])
    np.testing.assert_array_equal(
        straight.prior.mean(PEOPLE)[:, maps], whole.prior.mean(PEOPLE)[:, maps]
    )


def test_without_modes_the_spectrum_explains_all(
    whole: Generator, seen: RegisteredSubjects
) -> None:
    bare = ablation._without_modes(whole, seen).prior
    before = whole.prior.map_covariance
    assert len(before.modes) > 0
    assert bare.map_covariance.power.sum() > before.power.sum()
    assert len(bare.map_covariance.modes) == len(bare.map_covariance.variance) == 0
    assert bare.shape_field is whole.prior.shape_field


def test_without_a_spectrum_what_modes_leave_over_of_the_maps_is_white(
    whole: Generator, seen: RegisteredSubjects
) -> None:
    white = ablation._without_spectrum(whole, seen).prior
    before = whole.prior.map_covariance
    found = white.map_covariance
    assert np.ptp(found.power, axis=(1, 2, 3)).max() == 0 < np.ptp(before.power)
    np.testing.assert_allclose(found.power.mean(), before.power.mean(), rtol=1e-5)
    np.testing.assert_array_equal(found.modes, before.modes)
    assert white.shape_field is whole.prior.shape_field


def test_without_a_regression_everybody_has_the_mean_of_all(
    whole: Generator, seen: RegisteredSubjects
) -> None:
    equal = ablation._without_regression(whole, seen).prior
    young, old = equal.mean(PEOPLE)
    np.testing.assert_array_equal(young, old)
    image = torch.from_numpy(np.ascontiguousarray(seen.template.image))
    everyone = np.zeros(young.shape)
    for volume, u in zip(seen.encoded, seen.displacements, strict=True):
        still = volume - displaced(image, torch.from_numpy(np.array(u))).numpy()
        everyone += np.concatenate([still, u]) * equal.mask / len(seen.encoded)
    np.testing.assert_allclose(young, everyone, atol=2e-3)
    assert np.ptp(whole.prior.mean(PEOPLE), axis=0).max() > 0.01


def test_without_an_outline_it_is_that_of_the_field_but_for_specks(
    whole: Generator, seen: RegisteredSubjects
) -> None:
    rough = ablation._without_outline(whole, seen)
    assert rough.prior.outline_sigma == 0
    drawn = whole.prior.unsmoothed_shapes(noise(whole), PEOPLE)[:, 0] > 0
    found = shapes(rough)[:, 0] > 0
    assert (found != drawn).sum() < 0.001 * drawn.sum()


@pytest.mark.parametrize("part", ["displacements", "modes", "spectrum", "regression", "outline"])
def test_all_start_from_the_same_network(
    part: str, whole: Generator, seen: RegisteredSubjects
) -> None:
    changed = getattr(ablation, f"_without_{part}")(whole, seen)
    assert changed.digest != whole.digest
    expected = whole.denoiser.network.state_dict()
    for name, tensor in changed.denoiser.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_no_seconds_no_training(params: Path, subjects: Subjects, tmp_path: Path) -> None:
    known = ablation.contestants("3d", params)
    trained = known[ablation.WHOLE].train(subjects, Budget(0), 0, tmp_path)
    assert trained.steps == 0
    few, many = (trained.sample(PEOPLE, [1, 2], steps) for steps in (2, 6))
    # The closed form takes any number of steps, but for what noise outside the mask adds.
    assert np.abs(few - many)[:, 0].mean() < 1e-3
    np.testing.assert_array_equal(few > 0, many > 0)
    np.testing.assert_array_equal(few, trained.sample(PEOPLE, [1, 2], 2))


def test_nobody_is_shown_twice() -> None:
    people = [Condition(age, "F") for age in (24.0, 26.0, 50.0, 52.0, 88.0)]
    assert nearest(people, (25.0, 25.0, 51.0, 90.0)) == [0, 1, 2, 4]


def test_an_unknown_part_is_told() -> None:
    result = CliRunner().invoke(ablation.main, ["without anything"])
    assert result.exit_code == 2
    assert "without anything" in result.output
    assert "without displacements" in result.output
