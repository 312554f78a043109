"""Fronts and hypervolumes have known answers."""

from __future__ import annotations

import numpy as np
import pytest
from optuna._hypervolume import compute_hypervolume

from training.search.pareto import front, hypervolume


def test_a_dominated_point_is_not_on_the_front_and_equal_ones_both_are() -> None:
    values = np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 2.0], [3.0, 3.0], [3.0, 1.0], [1.0, 4.0]])
    assert front(values).tolist() == [True, True, True, False, True, False]


def test_the_hypervolume_of_steps_is_their_area() -> None:
    values = np.array([[1.0, 3.0], [3.0, 1.0], [2.0, 2.0]])
    assert hypervolume(values, np.array([4.0, 4.0])) == pytest.approx(3 + 2 + 1)
    assert hypervolume(values, np.array([1.0, 9.0])) == 0.0
    assert hypervolume(values[:, :1], np.array([4.0])) == 3.0
    assert hypervolume(np.zeros((0, 2)), np.ones(2)) == 0.0


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_it_is_optunas_and_grows_with_every_point(objectives: int) -> None:
    values = np.random.default_rng(objectives).random((15, objectives))
    reference = np.full(objectives, 0.9)
    mine = [hypervolume(values[: i + 1], reference) for i in range(len(values))]
    inside = values[(values < reference).all(axis=1)]
    assert mine[-1] == pytest.approx(compute_hypervolume(inside, reference))
    assert np.all(np.diff(mine) >= -1e-12)
