"""Samples of the closed form: those of a generator whose network says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.maps import FA, MD
from models.config import Dim
from models.generator import Generator
from tests.models.bent import bent_generator
from tests.models.tiny import DDPM, tiny_generator

PEOPLE = [Condition(30, "F"), Condition(70, "M"), Condition(50, "F")]
SEEDS = [1, 2, 3]
# In these units, which are the network's, FA and MD of the training subjects are alike.
UNITS = np.array([FA.scale, MD.scale]).reshape(2, 1, 1, 1)


def closed_form(generator: Generator) -> np.ndarray:
    made: np.ndarray = generator.sample_closed_form(PEOPLE, SEEDS) / UNITS
    return made


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_they_are_what_an_untrained_generator_samples(dim: Dim) -> None:
    generator = bent_generator(dim)
    found = closed_form(generator)
    brains = found[:, 1] > 0
    assert (brains[0] != brains[1]).any()
    for steps, tolerance in ((1, 1e-5), (4, 0.02)):  # outside the mask, steps add noise anew
        expected = generator.sample(PEOPLE, SEEDS, steps) / UNITS
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_network_and_path_do_not_matter() -> None:
    silent = closed_form(tiny_generator("3d", trained=False))
    np.testing.assert_array_equal(closed_form(tiny_generator("3d")), silent)
    np.testing.assert_array_equal(closed_form(tiny_generator("2d", path=DDPM)), silent)


def test_a_volume_depends_on_its_own_seed_alone() -> None:
    generator = tiny_generator("3d")
    together = generator.sample_closed_form(PEOPLE, SEEDS)
    for i in range(3):
        alone = generator.sample_closed_form(PEOPLE[i : i + 1], SEEDS[i : i + 1])
        np.testing.assert_array_equal(alone[0], together[i])
    other = generator.sample_closed_form(PEOPLE, [4, 5, 6])
    assert (abs(other - together) / UNITS).max(axis=(1, 2, 3, 4)).min() > 0.05


def test_the_same_seed_at_another_age_differs_by_the_effect_of_age() -> None:
    """The maps of the training subjects rise by 0.001 a year."""
    generator = tiny_generator("3d")
    young, old = generator.sample_closed_form([Condition(30, "F"), Condition(80, "F")], [7, 7])
    brain = (young[0] > 0) & (old[0] > 0)
    difference = ((old - young) / UNITS)[:, brain].mean(axis=1)
    np.testing.assert_allclose(difference, 0.05, atol=0.01)


def test_conditions_and_seeds_must_pair_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        tiny_generator("3d").sample_closed_form(PEOPLE, SEEDS[:1])
