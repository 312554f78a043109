"""The question of diversity: differences among synthetic volumes, and their ages and sexes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.block_features import standardised
from evaluation.comparison import Float64Array, Measure, Statistic, mean_difference, weights
from evaluation.fidelity import IndexArray, first_of_each_group
from evaluation.measurements import Measurements
from evaluation.ms_ssim import pair_matrix

# The similarity of pairs is computed for this many volumes per group, since the number of pairs
# grows with the square; two groups of 24 have 1128 pairs.
MAX_FOR_PAIRS = 24

_AGE_GROUPS = 3


def similarity(
    first: NDArray[np.float32], second: NDArray[np.float32], maximum: float
) -> Float64Array:
    """Returns the MS-SSIM of all pairs of the first 24 images of each group, pooled.

    Parameters
    ----------
    first, second : (n, X, Y, Z) and (m, X, Y, Z).
    maximum : the largest value that an image can have.
    """
    images = np.concatenate([first[:MAX_FOR_PAIRS], second[:MAX_FOR_PAIRS]])
    return pair_matrix(np.nan_to_num(images, posinf=0, neginf=0), maximum)


def measures(
    pooled: Measurements, train: Measurements, pairs: Float64Array, n: int
) -> list[Measure]:
    """Returns the measures of diversity.

    Parameters
    ----------
    pooled : of the synthetic and, after them, of the held-out real volumes.
    train : of the real subjects that the generator was trained on.
    pairs : the `similarity` of the two groups' FA maps.
    n : the number of synthetic volumes.
    """
    points = standardised(pooled.features, train.features)
    return [
        Measure("fa_ms_ssim", "MS-SSIM of pairs, FA", "", _mean_similarity(pairs, n, len(pooled)),
                "above", 0.02),
        Measure("variance", "Variance of features, log of its ratio to real", "",
                _log_variance_ratio(points), "below", 0.35),
        Measure("dimension", "Effective dimension, log of its ratio to real", "",
                _log_dimension_ratio(points, first_of_each_group(n, len(pooled))), "below", 0.4),
        Measure("conditions", "Ages and sexes, share that would have to move", "",
                _age_sex_distance(pooled), "above", 0.2),
    ]  # fmt: skip


def _mean_similarity(pairs: Float64Array, n: int, total: int) -> Statistic:
    """Returns the mean similarity of pairs within the first group less that within the second."""
    rows = np.concatenate([np.arange(n)[:MAX_FOR_PAIRS], np.arange(n, total)[:MAX_FOR_PAIRS]])
    off_diagonal = pairs - np.diag(np.diag(pairs))

    def mean(group: Float64Array) -> Float64Array:
        member = group[:, rows]
        size = member.sum(axis=1)
        similarities = ((member @ off_diagonal) * member).sum(axis=1)
        average: Float64Array = similarities / np.maximum(size * (size - 1), 1)
        return average

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        difference: Float64Array = mean(first) - mean(second)
        return difference[:, None]

    return statistic


def _log_variance_ratio(points: Float64Array) -> Statistic:
    """Returns the log ratio of the traces of two groups' covariances."""
    square = (points**2).sum(axis=1)

    def trace(group: Float64Array) -> Float64Array:
        share = weights(group)
        n = group.sum(axis=1)
        biased = share @ square - ((share @ points) ** 2).sum(axis=1)
        unbiased: Float64Array = biased * n / (n - 1)
        return unbiased

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        ratio: Float64Array = np.maximum(trace(first), 1e-9) / np.maximum(trace(second), 1e-9)
        logarithm: Float64Array = np.log(ratio)
        return logarithm[:, None]

    return statistic


def _log_dimension_ratio(points: Float64Array, rows: IndexArray) -> Statistic:
    """Returns the log ratio of two groups' effective dimensions.

    The effective dimension is the participation ratio of a covariance, (sum of eigenvalues)^2 /
    (sum of their squares). It is computed from the centred Gram matrix, which is smaller than the
    covariance and has the same eigenvalues.
    """
    gram = points[rows] @ points[rows].T

    def dimension(member: Float64Array) -> float:
        chosen = np.flatnonzero(member)
        inner = gram[np.ix_(chosen, chosen)]
        inner = inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()
        return float(np.trace(inner) ** 2 / max((inner**2).sum(), 1e-12))

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        groups = zip(first[:, rows], second[:, rows], strict=True)
        ratios = [max(dimension(a), 1e-3) / max(dimension(b), 1e-3) for a, b in groups]
        logarithm: Float64Array = np.log(np.array(ratios))
        return logarithm[:, None]

    return statistic


def _age_sex_distance(pooled: Measurements) -> Statistic:
    """Returns the total variation between two groups' shares of three age groups by sex."""
    edges = np.quantile(pooled.age, np.arange(1, _AGE_GROUPS) / _AGE_GROUPS)
    cell = np.searchsorted(edges, pooled.age) + _AGE_GROUPS * pooled.male.astype(int)
    member = (cell[:, None] == np.arange(2 * _AGE_GROUPS)).astype(float)
    difference = mean_difference(member)

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        distance: Float64Array = np.abs(difference(first, second)).sum(axis=1) / 2
        return distance[:, None]

    return statistic
