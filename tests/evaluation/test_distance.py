"""Distances against analytic cases."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.distance import (
    brain,
    histogram_distance,
    histograms,
    kernel_distance,
    mean_map_error,
)


def gaussian_mmd(shift: float, width: float, d: int) -> float:
    """Squared MMD of N(0, I) and N(shift e_1, I) under an RBF kernel of the given bandwidth.

    E k(x, y) = (w^2 / (w^2 + 2))^(d/2) exp(-delta^2 / (2 (w^2 + 2))) for the difference of two
    unit Gaussians of mean distance delta.
    """
    base = (width**2 / (width**2 + 2)) ** (d / 2)
    return float(2 * base * (1 - np.exp(-(shift**2) / (2 * (width**2 + 2)))))


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_kernel_distance_of_gaussian_clouds(shift: float) -> None:
    rng = np.random.default_rng(0)
    found = [
        kernel_distance(
            rng.normal(size=(300, 3)),
            rng.normal(size=(300, 3)) + np.array([shift, 0, 0]),
            bandwidth=2.0,
        )
        for _ in range(10)
    ]
    assert np.mean(found) == pytest.approx(gaussian_mmd(shift, 2.0, 3), abs=2e-3)


def test_kernel_distance_is_unbiased_for_small_groups() -> None:
    rng = np.random.default_rng(1)
    found = [
        kernel_distance(rng.normal(size=(4, 2)), rng.normal(size=(5, 2)), 1.0) for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(0, abs=3 * np.std(found) / 2000**0.5)


def test_kernel_distance_needs_two_points() -> None:
    with pytest.raises(ValueError, match="at least 2 points"):
        kernel_distance(np.zeros((1, 2)), np.zeros((5, 2)), 1.0)


def test_histogram_distance_is_the_shift() -> None:
    rng = np.random.default_rng(2)
    images = rng.uniform(0.2, 0.5, size=(4, 10, 10, 10)).astype(np.float32)
    inside = np.ones(images.shape, dtype=bool)
    a, b = (histograms(v, inside, 1.0) for v in (images, images + np.float32(0.1)))
    assert histogram_distance(a, b, 1.0) == pytest.approx(0.1, abs=1e-3)
    assert histogram_distance(a, a, 1.0) == 0


def test_histograms_read_the_brain_alone() -> None:
    images = np.full((1, 4, 4, 4), 0.5, dtype=np.float32)
    inside = np.zeros(images.shape, dtype=bool)
    inside[:, :2] = True
    outside = np.where(inside, images, np.float32(0.9))
    np.testing.assert_array_equal(histograms(images, inside, 1.0), histograms(outside, inside, 1.0))


def test_mean_map_error_is_that_of_the_averages() -> None:
    a = np.array([[1.0, 3.0], [3.0, 1.0]], dtype=np.float32)
    b = np.array([[2.0, 5.0]], dtype=np.float32)
    assert mean_map_error(a, b) == pytest.approx(1.5)


def test_brain_is_where_something_diffuses() -> None:
    volumes = np.zeros((1, 2, 2, 2, 2), dtype=np.float32)
    volumes[0, 1, 0] = 0.7e-3
    assert brain(volumes, md=1).sum() == 4
