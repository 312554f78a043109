"""Monotone curves between normal values and a voxel's own, and local spreads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.gaussian import Array

# A voxel's spread below this share of the largest is the noise of a nearly empty voxel.
_SCALE_FLOOR = 0.05
_SMOOTH_VOXELS = 1.0
_STEP = 0.5
NORMAL = np.arange(-2, 2 + _STEP, _STEP)
_LEAST_RISE = 0.02
FARTHEST = 3.0
# Of all subjects' values in the voxels that are sorted at a time.
_SLAB_BYTES = 64 * 2**20


def rising(values: Array, spread: Array, explained: tuple[Array, Array] | None = None) -> Array:
    """Knots (9, ...) of curves of (n, ...) values over `spread` (...): their quantiles at those
    of normal values -2, -1.5 ... 2.

    Quantiles need all subjects of a voxel: voxels are taken in slabs.

    Parameters
    ----------
    explained : (n, P) and (P, ...), whose product is taken from the values first.
    """
    flat, over = values.reshape(len(values), -1), spread.reshape(-1)
    out = np.empty((len(NORMAL), flat.shape[1]), dtype=np.float32)
    width = max(_SLAB_BYTES // max(flat[:, :1].nbytes, 1), 1)
    for first in range(0, flat.shape[1], width):
        slab = slice(first, first + width)
        left = flat[:, slab]
        if explained is not None:
            rows, mean = explained
            left = left - rows @ mean.reshape(len(mean), -1)[:, slab]
        out[:, slab] = _quantiles(left / over[slab])
    return out.reshape(len(NORMAL), *spread.shape)


def _quantiles(values: Array) -> Array:
    from scipy.special import ndtr

    quantiles = np.quantile(values, ndtr(NORMAL), axis=0)
    # A voxel that hardly varies keeps a curve that rises, so that it can be inverted; from its
    # median on, so that what does not vary is at 0.
    rises = np.maximum(np.diff(quantiles, axis=0), _LEAST_RISE)
    middle = len(NORMAL) // 2
    above = np.cumsum(rises[middle:], axis=0)
    below = np.cumsum(rises[:middle][::-1], axis=0)[::-1]
    steps = np.concatenate([-below, np.zeros_like(above[:1]), above])
    curves: Array = (quantiles[middle] + steps).astype(np.float32)
    return curves


def to_normal(values: Array, knots: Array) -> Array:
    """Normal values of (n, ...) values by curves with (9, ...) knots, linear between and beyond
    them, cut at -3 and 3."""
    out = np.full_like(values, NORMAL[0])
    for k in range(len(NORMAL) - 1):
        share = (values - knots[k]) / (knots[k + 1] - knots[k])
        out += np.float32(_STEP) * np.clip(share, *_limits(k))
    return np.clip(out, -FARTHEST, FARTHEST)


def from_normal(normal: Array, knots: Array) -> Array:
    """Values of (n, ...) normal ones; inverse of `to_normal` up to its cut."""
    inside = np.clip(normal, -FARTHEST, FARTHEST)
    out = np.repeat(knots[:1], len(normal), axis=0)
    for k in range(len(NORMAL) - 1):
        share = (inside - np.float32(NORMAL[k])) / np.float32(_STEP)
        out += (knots[k + 1] - knots[k]) * np.clip(share, *_limits(k))
    return out


def _limits(k: int) -> tuple[float, float]:
    """The first and the last piece of a curve go on beyond their knot."""
    return (-np.inf if k == 0 else 0.0, np.inf if k == len(NORMAL) - 2 else 1.0)


def local_spread(variance: NDArray[np.float64], mask: NDArray[np.bool_]) -> Array:
    """Standard deviations (C, X, Y, Z) of variances averaged over a neighbourhood in the mask, no
    less than a share of the largest."""
    from scipy.ndimage import gaussian_filter

    weight = np.maximum(gaussian_filter(mask.astype(np.float64), _SMOOTH_VOXELS), 1e-6)
    out = np.empty_like(variance)
    for i, image in enumerate(variance):
        spread = np.sqrt(gaussian_filter(image * mask, _SMOOTH_VOXELS) / weight)
        floor = max(_SCALE_FLOOR * float(spread[mask].max()), 1e-6)
        out[i] = np.where(mask, np.maximum(spread, floor), floor)
    spreads: Array = out.astype(np.float32)
    return spreads
