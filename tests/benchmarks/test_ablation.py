"""What is left out is left out, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import ablation
from benchmarks.contestants import prepared
from benchmarks.pictures import nearest
from benchmarks.recipes.budget import Budget
from cohort.subjects import Subjects
from contracts.condition import Condition
from contracts.params import load
from models.generator import Generator
from tests.benchmarks.test_generators import PARAMS, _subjects
from training.relative import RelativeSubjects
from training.settings import TrainSettings

PEOPLE = [Condition(25, "F"), Condition(80, "M")]


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(PARAMS)
    return path


@pytest.fixture(scope="module")
def subjects() -> Subjects:
    return _subjects(24, 1)


@pytest.fixture(scope="module")
def ready(
    subjects: Subjects, params: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Generator, RelativeSubjects]:
    settings = load(TrainSettings, "train.3d", params)
    return prepared("3d", settings, subjects, tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="module")
def whole(ready: tuple[Generator, RelativeSubjects]) -> Generator:
    return ready[0]


@pytest.fixture(scope="module")
def seen(ready: tuple[Generator, RelativeSubjects]) -> RelativeSubjects:
    return ready[1]


def test_modes_directions_and_spectrum(
    whole: Generator, subjects: Subjects, seen: RelativeSubjects
) -> None:
    people = subjects.conditions
    before = whole.prior.covariance
    common = ablation._without_directions(whole, seen, people).prior.covariance
    bare = ablation._without_modes(whole, seen, people).prior.covariance
    white = ablation._without_spectrum(whole, seen, people).prior.covariance
    assert len(bare.modes) == 0 < len(before.modes)
    assert len(common.modes) <= 4
    assert np.ptp(white.power, axis=(1, 2, 3)).max() == 0 < np.ptp(before.power)
    np.testing.assert_allclose(white.power.mean(), before.power.mean(), rtol=1e-5)
    np.testing.assert_array_equal(white.modes, before.modes)


def test_quantiles_template_and_regression(
    whole: Generator, subjects: Subjects, seen: RelativeSubjects
) -> None:
    people = subjects.conditions
    straight = ablation._without_quantiles(whole, seen, people).prior
    straight = replace(
        straight, transform=None, site_gain=np.ones(straight.channels, dtype=np.float32)
    )
    unit = np.random.default_rng(0).uniform(-1, 1, (1, *straight.scale.shape))
    r = unit.astype(np.float32)
    mean, one = straight.mean(PEOPLE[:1]), PEOPLE[:1]
    linear = straight.volume(2 * r, one) - mean
    np.testing.assert_allclose(linear, 2 * (straight.volume(r, one) - mean), atol=1e-4)
    loose = ablation._without_template(whole, seen, people).prior
    assert loose.transform is None
    assert loose.channels == whole.prior.channels - 3
    equal = ablation._without_regression(whole, seen, people).prior
    young, old = equal.mean(PEOPLE)
    np.testing.assert_array_equal(young, old)
    np.testing.assert_allclose(young, seen.relative.mean(axis=0) * equal.mask, atol=1e-4)
    assert np.ptp(whole.prior.mean(PEOPLE), axis=0).max() > 0.01


def test_no_seconds_no_training(params: Path, subjects: Subjects, tmp_path: Path) -> None:
    known = ablation.contestants("3d", params)
    trained = known[ablation.WHOLE].train(subjects, Budget(0), 0, tmp_path)
    assert trained.steps == 0
    few, many = (trained.sample(PEOPLE, [1, 2], steps) for steps in (2, 6))
    # The closed form takes any number of steps, but for what noise outside the mask adds.
    assert np.abs(few - many)[:, 0].mean() < 1e-3
    np.testing.assert_array_equal(few, trained.sample(PEOPLE, [1, 2], 2))


def test_nobody_is_shown_twice() -> None:
    people = [Condition(age, "F") for age in (24.0, 26.0, 50.0, 52.0, 88.0)]
    assert nearest(people, (25.0, 25.0, 51.0, 90.0)) == [0, 1, 2, 4]


def test_an_unknown_part_is_told() -> None:
    result = CliRunner().invoke(ablation.main, ["without anything"])
    assert result.exit_code == 2
    assert "without anything" in result.output
    assert "without template" in result.output
