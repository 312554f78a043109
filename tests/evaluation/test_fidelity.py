"""Fidelity's distances against analytic cases."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.block_features import standardised
from evaluation.comparison import Float64Array
from evaluation.fidelity import (
    Neighbourhood,
    first_of_each_group,
    frechet_distance,
    neighbourhood,
    wasserstein_distance,
)
from evaluation.kernel_distance import kernel_distance
from evaluation.ms_ssim import KERNEL, SCALES, SIGMA, pair_matrix, pair_scores
from tests.evaluation.people import people

NAMES: tuple[Neighbourhood, ...] = ("precision", "recall", "density", "coverage")


def groups(n: int, m: int) -> tuple[Float64Array, Float64Array]:
    first = (np.arange(n + m) < n).astype(float)[None]
    return first, 1 - first


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
    found = []
    for _ in range(60):
        points = rng.normal(size=(400, 3))
        points[:200, 0] += shift
        found.append(float(kernel_distance(points, 2.0)(*groups(200, 200))[0, 0]))
    error = 3 * np.std(found) / 60**0.5
    assert error < 0.01
    assert np.mean(found) == pytest.approx(gaussian_mmd(shift, 2.0, 3), abs=error)


def test_kernel_distance_is_unbiased_for_small_groups() -> None:
    rng = np.random.default_rng(1)
    found = [
        float(kernel_distance(rng.normal(size=(9, 2)), 1.0)(*groups(4, 5))[0, 0])
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(0, abs=3 * np.std(found) / 2000**0.5)


def test_frechet_distance_of_two_gaussians_is_the_closed_form() -> None:
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(4, 4))
    points = rng.normal(size=(40000, 4))
    points[:20000] = points[:20000] @ mixing + np.array([1.0, 0, 0, -2.0])
    cov = mixing.T @ mixing
    # |mean|^2 + tr(C + I - 2 C^1/2), C^1/2 by its eigenvalues
    expected = 5 + np.trace(cov) + 4 - 2 * np.sqrt(np.linalg.eigvalsh(cov)).sum()
    found = float(frechet_distance(points)(*groups(20000, 20000))[0, 0])
    assert found == pytest.approx(expected, rel=0.02)


def test_precision_and_recall_of_a_collapsed_and_of_a_stray_set() -> None:
    rng = np.random.default_rng(3)
    real = rng.normal(size=(100, 2))
    collapsed = real[:1] + 0.01 * rng.normal(size=(100, 2))
    stray = rng.normal(size=(100, 2)) + 30
    for made, precision, recall, coverage in (
        (collapsed, 1.0, 0.02, 0.1),
        (stray, 0.0, 0.0, 0.0),
        (rng.normal(size=(100, 2)), 0.95, 0.95, 0.95),
    ):
        points = np.concatenate([made, real])
        rows = first_of_each_group(100, 200)
        values = [
            float(neighbourhood(points, name, rows)(*groups(100, 100))[0, 0]) for name in NAMES
        ]
        assert values[0] == pytest.approx(precision, abs=0.15)
        assert values[1] == pytest.approx(recall, abs=0.15)
        assert values[3] == pytest.approx(coverage, abs=0.15)


def test_wasserstein_of_a_shifted_histogram_is_the_shift() -> None:
    shares = np.zeros((10, 100))
    shares[:4, 30] = 1
    shares[4:, 20] = 1
    assert float(wasserstein_distance(shares, 0.01)(*groups(4, 6))[0, 0]) == pytest.approx(0.1)
    assert float(wasserstein_distance(shares[4:], 0.01)(*groups(2, 4))[0, 0]) == 0


def test_wasserstein_agrees_with_scipy() -> None:
    from scipy.stats import wasserstein_distance as of_samples

    rng = np.random.default_rng(4)
    a, b = rng.beta(2, 5, 5000), rng.beta(3, 4, 5000)
    shares = np.stack([np.histogram(v, 400, (0, 1))[0] / 5000 for v in (a, b)])
    found = float(wasserstein_distance(shares, 1 / 400)(*groups(1, 1))[0, 0])
    assert found == pytest.approx(of_samples(a, b), abs=1 / 400)


def test_regions_are_computed_apart() -> None:
    shares = np.zeros((4, 2, 10))
    shares[:, 0, 0] = 1
    shares[:2, 1, 5] = shares[2:, 1, 2] = 1
    np.testing.assert_allclose(wasserstein_distance(shares, 0.1)(*groups(2, 2)), [[0, 0.3]])


def test_standardised_reference_has_unit_spread_and_far_points_are_cut() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(5, 3, size=(50, 4))
    points = standardised(reference, reference)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(points.std(axis=0), 1, atol=1e-9)
    assert standardised(reference * 1e6, reference).max() == 20


def test_ms_ssim_agrees_with_monai() -> None:
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    images = people(3, 4).volumes[:, 0]
    metric = MultiScaleSSIMMetric(
        3, data_range=1.0, kernel_size=KERNEL, kernel_sigma=SIGMA, weights=SCALES
    )
    found = pair_matrix(images, 1.0)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        a, b = (torch.from_numpy(images[k][None, None]) for k in (i, j))
        assert found[i, j] == found[j, i] == pytest.approx(float(metric(a, b)), abs=1e-4)


def test_ms_ssim_does_not_change_with_the_unit_or_the_company() -> None:
    images = people(4, 5).volumes[:, 0]
    pair = np.array([[0, 1]])
    alone = pair_scores(images[:2], pair, 1.0)
    np.testing.assert_allclose(pair_scores(images, pair, 1.0), alone, atol=1e-6)
    np.testing.assert_allclose(pair_scores(1000 * images[:2], pair, 1000.0), alone, atol=1e-5)
    assert pair_matrix(images[[0, 0]], 1.0)[0, 1] == pytest.approx(1, abs=1e-6)


def test_volumes_too_small_for_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="too small for a window"):
        pair_matrix(np.zeros((2, 12, 12, 12), dtype=np.float32), 1.0)
