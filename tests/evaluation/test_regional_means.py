"""Regional means: what they are, and how far those of two groups are apart."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.condition import Condition
from evaluation.regional_means import RegionalMeans

SHAPE = (6, 4, 4)
N = 400
PEOPLE = [Condition(20.0 + 60 * i / N, "F" if i % 2 else "M") for i in range(N)]


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[:2], labels[2:4] = 3, 7
    return labels


def volumes(seed: int, n: int = N) -> np.ndarray:
    """FA and MD that differ from person to person as a whole."""
    rng = np.random.default_rng(seed)
    made = np.ones((n, 2, *SHAPE), dtype=np.float32)
    made[:, 0] *= 0.4 + 0.02 * rng.standard_normal((n, 1, 1, 1))
    made[:, 1] *= 0.8e-3 + 0.05e-3 * rng.standard_normal((n, 1, 1, 1))
    return made


def test_means_are_of_the_brain_s_part_of_each_region(labels: np.ndarray) -> None:
    made = volumes(0, 2)
    made[:, :, 1] = 0  # no brain in half of the first region
    made[0, 0, 3] = 0.1
    means = RegionalMeans(labels, np.ones((2, 2)))(made)
    assert means.shape == (2, 2, 2)
    np.testing.assert_allclose(means[:, :, 0], made[:, :, 0, 0, 0], rtol=1e-6)
    assert means[0, 0, 1] == pytest.approx((made[0, 0, 2, 0, 0] + 0.1) / 2, rel=1e-6)


def test_the_spread_is_that_of_people_of_one_age(labels: np.ndarray) -> None:
    made = volumes(1)
    made[:, 0] += np.array([0.004 * c.age for c in PEOPLE])[:, None, None, None]
    regions = RegionalMeans.of(labels, made, PEOPLE)
    np.testing.assert_allclose(regions.spread, [[0.02] * 2, [0.05e-3] * 2], rtol=0.1)


def test_differences_are_in_standard_deviations_and_in_their_region(labels: np.ndarray) -> None:
    made, others = volumes(2), volumes(2)
    made[:, 1, 2:4] += 0.1e-3
    found = RegionalMeans.of(labels, others, PEOPLE).differences(made, others)
    np.testing.assert_allclose(found, [[0, 0], [0, 2]], atol=0.2)


def test_the_distance_is_that_of_two_normal_distributions(labels: np.ndarray) -> None:
    others = volumes(3)
    regions = RegionalMeans.of(labels, others, PEOPLE)
    assert regions.distance(others, others) == 0
    # Everywhere two standard deviations higher, in FA alone: the mean over maps is half of 2^2.
    made = others.copy()
    made[:, 0] += 2 * regions.spread[0, 0]
    assert regions.distance(made, others) == pytest.approx(np.sqrt(2), rel=1e-3)
    # No spread at all: the difference of 1 and 0.
    same = np.broadcast_to(others.mean(axis=0), others.shape)
    assert regions.distance(same, others) == pytest.approx(1, rel=0.1)


def test_one_changed_region_is_noticed_beyond_chance(labels: np.ndarray) -> None:
    """The distance of two small groups of the same people stays below that of changed ones."""
    regions = RegionalMeans.of(labels, volumes(4), PEOPLE)
    real = volumes(5, 16)
    by_chance = [regions.distance(volumes(seed, 16), real) for seed in range(6, 26)]
    changed = []
    for seed in range(26, 46):
        made = volumes(seed, 16)
        made[:, 0, :2] -= 3 * regions.spread[0, 0]
        changed.append(regions.distance(made, real))
    assert min(changed) > max(by_chance)


def test_a_region_that_no_brain_reaches_counts_nothing(labels: np.ndarray) -> None:
    made = volumes(6)
    made[:, :, 2:4] = 0
    regions = RegionalMeans.of(labels, made, PEOPLE)
    assert np.isfinite(regions(made)).all()
    np.testing.assert_array_equal(regions(made)[:, :, 1], 0)
