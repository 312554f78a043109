"""The quantile transform: monotone curves between normal scores and a voxel's own values."""

from __future__ import annotations

import numpy as np

from cohort.regression import Array

# Normal scores of a curve's knots.
_STEP = 0.5
SCORES = np.arange(-2, 2 + _STEP, _STEP)
# Normal scores are clipped at plus and minus this.
CLIP = 3.0
# Least rise of a curve between two knots: a voxel that hardly varies must stay invertible.
_LEAST_RISE = 0.02
# Bytes of all subjects' values in the block of voxels that is sorted at a time.
_BLOCK_BYTES = 64 * 2**20


def fit_knots(values: Array, scale: Array, explained: tuple[Array, Array] | None = None) -> Array:
    """Fits one curve per voxel: the quantiles of values / scale at normal scores -2, -1.5 ... 2.

    Quantiles need all subjects of a voxel; therefore voxels are taken in blocks.

    Parameters
    ----------
    values : (n, ...).
    scale : (...).
    explained : (n, P) and (P, ...), whose product is subtracted from the values first.

    Returns
    -------
    (9, ...), rising along the first axis.
    """
    flat, over = values.reshape(len(values), -1), scale.reshape(-1)
    out = np.empty((len(SCORES), flat.shape[1]), dtype=np.float32)
    width = max(_BLOCK_BYTES // max(flat[:, :1].nbytes, 1), 1)
    for first in range(0, flat.shape[1], width):
        block = slice(first, first + width)
        residual = flat[:, block]
        if explained is not None:
            rows, mean = explained
            residual = residual - rows @ mean.reshape(len(mean), -1)[:, block]
        out[:, block] = _quantiles(residual / over[block])
    return out.reshape(len(SCORES), *scale.shape)


def _quantiles(values: Array) -> Array:
    from scipy.special import ndtr

    quantiles = np.quantile(values, ndtr(SCORES), axis=0)
    # The least rise is added from the median on, so that a voxel that does not vary stays at 0.
    rises = np.maximum(np.diff(quantiles, axis=0), _LEAST_RISE)
    middle = len(SCORES) // 2
    above = np.cumsum(rises[middle:], axis=0)
    below = np.cumsum(rises[:middle][::-1], axis=0)[::-1]
    steps = np.concatenate([-below, np.zeros_like(above[:1]), above])
    knots: Array = (quantiles[middle] + steps).astype(np.float32)
    return knots


def to_scores(values: Array, knots: Array) -> Array:
    """Returns the normal scores of (n, ...) values, clipped at -3 and 3.

    The curves are linear between their knots (9, ...), and beyond the first and the last.
    """
    out = np.full_like(values, SCORES[0])
    for k in range(len(SCORES) - 1):
        share = (values - knots[k]) / (knots[k + 1] - knots[k])
        out += np.float32(_STEP) * np.clip(share, *_limits(k))
    return np.clip(out, -CLIP, CLIP)


def from_scores(scores: Array, knots: Array) -> Array:
    """Returns the values of (n, ...) normal scores; inverse of `to_scores` but for the clipping."""
    inside = np.clip(scores, -CLIP, CLIP)
    out = np.repeat(knots[:1], len(scores), axis=0)
    for k in range(len(SCORES) - 1):
        share = (inside - np.float32(SCORES[k])) / np.float32(_STEP)
        out += (knots[k + 1] - knots[k]) * np.clip(share, *_limits(k))
    return out


def _limits(k: int) -> tuple[float, float]:
    """Returns the limits of the share of piece k: the outer pieces go on beyond their knot."""
    return (-np.inf if k == 0 else 0.0, np.inf if k == len(SCORES) - 2 else 1.0)
