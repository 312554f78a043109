"""How different the volumes of one set are from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.interval import Interval

Array = NDArray[np.float32]

# A 40-voxel side carries three scales with this window. Values depend on both: compare them only
# with values of the same setting.
KERNEL = 7
SIGMA = 1.5
SCALES = (0.0710, 0.4530, 0.4760)  # the first three of Wang et al. 2003, made to sum to one
_K1, _K2 = 0.01, 0.03


def ms_ssim(images: Array, maximum: float, pairs: int, seed: int = 0) -> Interval:
    """Mean multi-scale structural similarity of random pairs of (n, X, Y, Z) images.

    High values mean that the images resemble each other: a set of copies scores 1. The interval
    is that of the mean over pairs.

    Raises
    ------
    ValueError : with fewer than three images.
    """
    if len(images) < 3:
        raise ValueError(f"expected at least 3 images, got {len(images)}")
    every = np.stack(np.triu_indices(len(images), k=1), axis=1)
    chosen = every[np.random.default_rng(seed).permutation(len(every))[:pairs]]
    scores = pair_scores(images, chosen, maximum)
    half = 1.96 * float(scores.std(ddof=1)) / len(scores) ** 0.5
    mean = float(scores.mean())
    return Interval(mean, mean - half, mean + half)


def pair_scores(images: Array, pairs: NDArray[np.int64], maximum: float) -> NDArray[np.float64]:
    """MS-SSIM (Wang et al. 2003, eq. 7) of each of (p, 2) pairs of rows of `images`.

    Windows are Gaussian and separable, and what concerns one image alone is computed once per
    image, not once per pair.
    """
    c1, c2 = (_K1 * maximum) ** 2, (_K2 * maximum) ** 2
    scores = np.ones(len(pairs))
    current = images.astype(np.float64)
    for scale, weight in enumerate(SCALES):
        mean = _window(current)
        variance = _window(current**2) - mean**2
        for k, (i, j) in enumerate(pairs):
            covariance = _window(current[i] * current[j]) - mean[i] * mean[j]
            value = (2 * covariance + c2) / (variance[i] + variance[j] + c2)
            if scale == len(SCALES) - 1:
                value *= (2 * mean[i] * mean[j] + c1) / (mean[i] ** 2 + mean[j] ** 2 + c1)
            scores[k] *= max(float(value.mean()), 0.0) ** weight
        current = _halved(current)
    return scores


def _window(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian window means at the places where the whole window fits."""
    from scipy.ndimage import correlate1d

    offsets = np.arange(KERNEL) - KERNEL // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    margin = slice(KERNEL // 2, -(KERNEL // 2))
    for axis in (-3, -2, -1):
        images = correlate1d(images, weights, axis=axis)
    return images[..., margin, margin, margin]


def _halved(images: NDArray[np.float64]) -> NDArray[np.float64]:
    n, *size = images.shape
    x, y, z = (s // 2 for s in size)
    cells = images[:, : 2 * x, : 2 * y, : 2 * z].reshape(n, x, 2, y, 2, z, 2)
    means: NDArray[np.float64] = cells.mean(axis=(2, 4, 6))
    return means
