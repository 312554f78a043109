"""Multi-scale structural similarity of many pairs of volumes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Table = NDArray[np.float64]

# A 40-voxel side carries three scales with this window. Values depend on both: compare them only
# with values of the same setting.
KERNEL = 7
SIGMA = 1.5
SCALES = (0.0710, 0.4530, 0.4760)  # the first three of Wang et al. 2003, made to sum to one
_K1, _K2 = 0.01, 0.03
_TOGETHER = 8


def pair_matrix(images: Array, maximum: float) -> Table:
    """MS-SSIM of all pairs of (n, X, Y, Z) images; (n, n), symmetric, 1 on the diagonal."""
    n = len(images)
    pairs = np.stack(np.triu_indices(n, k=1), axis=1)
    out = np.eye(n)
    scores = pair_scores(images, pairs, maximum)
    out[pairs[:, 0], pairs[:, 1]] = out[pairs[:, 1], pairs[:, 0]] = scores
    return out


def pair_scores(
    images: Array,
    pairs: NDArray[np.int64],
    maximum: float,
    kernel: int = KERNEL,
    scales: tuple[float, ...] = SCALES,
) -> Table:
    """MS-SSIM (Wang et al. 2003, eq. 7) of each of (p, 2) pairs of rows of `images`.

    Windows are Gaussian and separable: products with banded matrices. What concerns one image
    alone is computed once per image, not once per pair.

    Raises
    ------
    ValueError : if the smallest scale is smaller than the window.
    """
    from threadpoolctl import threadpool_limits

    if min(images.shape[1:]) // 2 ** (len(scales) - 1) < kernel:
        raise ValueError(
            f"volumes of {images.shape[1:]} voxels are too small for a window of {kernel} at "
            f"{len(scales)} scales"
        )
    c1, c2 = np.float32(_K1**2), np.float32(_K2**2)
    scores = np.ones(len(pairs))
    current = (images / maximum).astype(np.float32)
    for scale, weight in enumerate(scales):
        window = _Window(current.shape[1:], kernel)
        mean = window(current)
        variance = window(current**2) - mean**2

        def few(
            start: int,
            window: _Window = window,
            images: Array = current,
            mean: Array = mean,
            variance: Array = variance,
            last: bool = scale == len(scales) - 1,
        ) -> Table:
            i, j = pairs[start : start + _TOGETHER].T
            value = window(images[i] * images[j])
            both = mean[i] * mean[j]
            value -= both
            value *= 2
            value += c2
            value /= variance[i] + variance[j] + c2
            if last:
                value *= (2 * both + c1) / (mean[i] ** 2 + mean[j] ** 2 + c1)
            average: Table = value.mean(axis=(1, 2, 3), dtype=np.float64)
            return average

        # NumPy leaves the interpreter alone while it computes; which thread does it is no matter.
        # Matrix products with threads of their own on top would halve the speed.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
            averages = list(pool.map(few, range(0, len(pairs), _TOGETHER)))
        scores *= np.maximum(np.concatenate(averages), 0) ** weight
        current = _halved(current)
    return scores


class _Window:
    """Gaussian window means at the places where the whole window fits."""

    def __init__(self, shape: tuple[int, ...], kernel: int) -> None:
        offsets = np.arange(kernel) - (kernel - 1) / 2
        weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
        weights /= weights.sum()
        self._bands = []
        for size in shape:
            band = np.zeros((size - kernel + 1, size), dtype=np.float32)
            for row in range(len(band)):
                band[row, row : row + kernel] = weights
            self._bands.append(band)

    def __call__(self, images: Array) -> Array:
        x, y, z = self._bands
        along = y @ (images @ z.T)
        flat = along.reshape(*along.shape[:2], -1)
        out: Array = (x @ flat).reshape(len(images), -1, *along.shape[2:])
        return out


def _halved(images: Array) -> Array:
    n, *size = images.shape
    x, y, z = (s // 2 for s in size)
    cells = images[:, : 2 * x, : 2 * y, : 2 * z].reshape(n, x, 2, y, 2, z, 2)
    means: Array = cells.mean(axis=(2, 4, 6))
    return means
