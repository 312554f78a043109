"""The kernel distance between two groups of points (maximum mean discrepancy)."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist

from evaluation.comparison import Float64Array, Statistic

# Distances are computed in chunks of this many columns to bound memory.
_CHUNK = 128


def median_distance(points: Float64Array) -> float:
    """Returns the median distance between two of (n, d) points, the usual RBF bandwidth."""
    return float(np.median(pdist(points)))


def kernel_distance(points: Float64Array, bandwidth: float) -> Statistic:
    """Returns the unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

    The kernel is a radial basis function, exp(-|x - y|^2 / (2 bandwidth^2)).

    Parameters
    ----------
    points : (n, d), the pooled volumes.
    """

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        n, m = first.sum(axis=1), second.sum(axis=1)
        # A point's kernel with itself is 1 and does not belong to the unbiased sums.
        within_first, within_second, between = -n, -m, np.zeros(len(first))
        for begin in range(0, len(points), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            squared = cdist(points, points[chunk], "sqeuclidean")
            kernel = np.exp(-squared / (2 * bandwidth**2))
            to_first = first @ kernel
            within_first = within_first + (to_first * first[:, chunk]).sum(axis=1)
            within_second = within_second + ((second @ kernel) * second[:, chunk]).sum(axis=1)
            between = between + (to_first * second[:, chunk]).sum(axis=1)
        distance: Float64Array = (
            within_first / (n * (n - 1)) + within_second / (m * (m - 1)) - 2 * between / (n * m)
        )
        return distance[:, None]

    return statistic
