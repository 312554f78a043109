"""Distances between a set of synthetic and a set of real volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.features import squared_distances

Array = NDArray[np.float32]
Points = NDArray[np.float64]

_BINS = 1000
# Diffusivity of living tissue is several times this; the background of a map is zero. mm2/s.
BACKGROUND_MD = 0.1e-3


def kernel_matrix(a: Points, b: Points, bandwidth: float) -> Points:
    """k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)) of (n, d) and (m, d) points; (n, m)."""
    return np.exp(-squared_distances(a, b) / (2 * bandwidth**2))


def discrepancy(within_a: Points, within_b: Points, between: Points) -> float:
    """Unbiased squared maximum mean discrepancy from kernel matrices (Gretton et al. 2012, eq. 3).

    Raises
    ------
    ValueError : with fewer than two points on a side.
    """
    n, m = between.shape
    if n < 2 or m < 2:
        raise ValueError(f"expected at least 2 points on each side, got {n} and {m}")
    mean_a = (within_a.sum() - np.trace(within_a)) / (n * (n - 1))
    mean_b = (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(mean_a + mean_b - 2 * between.mean())


def kernel_distance(a: Points, b: Points, bandwidth: float) -> float:
    """Kernel distance of (n, d) and (m, d) points: zero in expectation for two samples of one
    distribution, so that it may come out slightly negative. See `discrepancy`."""
    return discrepancy(
        kernel_matrix(a, a, bandwidth),
        kernel_matrix(b, b, bandwidth),
        kernel_matrix(a, b, bandwidth),
    )


def brain(volumes: Array, md: int) -> NDArray[np.bool_]:
    """Voxels that hold tissue or fluid, (n, X, Y, Z), by their MD in mm2/s (map number `md`)."""
    inside: NDArray[np.bool_] = volumes[:, md] > BACKGROUND_MD
    return inside


def histograms(images: Array, inside: NDArray[np.bool_], maximum: float) -> Points:
    """Each subject's share of voxels in 1000 equal bins of [0, maximum]; (n, 1000)."""
    rows = []
    for image, mask in zip(images, inside, strict=True):
        counts, _ = np.histogram(image[mask], bins=_BINS, range=(0.0, maximum))
        rows.append(counts / max(counts.sum(), 1))
    return np.stack(rows)


def histogram_distance(a: Points, b: Points, maximum: float) -> float:
    """Wasserstein-1 distance of two groups' mean `histograms`, in the unit of the map.

    The area between the two distribution functions, exact to the bin width maximum / 1000.
    """
    gap = np.cumsum(a.mean(axis=0) - b.mean(axis=0))
    return float(np.abs(gap).sum() * maximum / _BINS)


def mean_map_error(a: Array, b: Array) -> float:
    """Mean absolute difference of the average of two groups of images, (n, V) and (m, V)."""
    return float(np.abs(a.mean(axis=0) - b.mean(axis=0)).mean())
