"""Samples of the closed form: those of a generator whose network says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.condition import Condition
from evaluation.closed_form import closed_form_volumes
from models.config import Dim
from tests.models.tiny import tiny_generator

PEOPLE = [Condition(30, "F"), Condition(70, "M"), Condition(50, "F")]
SEEDS = [1, 2, 3]


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_they_are_what_an_untrained_generator_samples(dim: Dim) -> None:
    generator = tiny_generator(dim, trained=False)
    found = closed_form_volumes(generator, PEOPLE, SEEDS)
    scale = np.array([1.0, 1e-3])[None, :, None, None, None]
    for steps, tolerance in ((1, 1e-5), (4, 0.02)):  # outside the mask, steps add noise anew
        expected = generator.sample(PEOPLE, SEEDS, steps)
        np.testing.assert_allclose(found / scale, expected / scale, atol=tolerance)


def test_the_network_does_not_matter() -> None:
    silent, loud = (tiny_generator("3d", trained=trained) for trained in (False, True))
    one, other = (closed_form_volumes(g, PEOPLE, SEEDS) for g in (silent, loud))
    np.testing.assert_array_equal(one, other)
