"""The copy share: how many volumes are nearer to a training subject than new people are."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from evaluation.comparison import Float64Array, Statistic

# A held-out subject is nearer to a training subject than the limit with this probability.
EXPECTED_SHARE = 0.05


def copy_share(synthetic: Float64Array, held_out: Float64Array, train: Float64Array) -> float:
    """Returns the share of synthetic points nearer to a training point than 95 % of real ones.

    A generator that copies nobody scores about `EXPECTED_SHARE`. The real ones are the held-out
    subjects and the training subjects themselves, each beside the others: a handful of held-out
    subjects alone would make the limit their smallest distance, which varies a lot.

    Parameters
    ----------
    synthetic, held_out, train : (n, d), (m, d) and (k, d) standardised features.
    """
    among_train = cdist(train, train)
    np.fill_diagonal(among_train, np.inf)
    real = np.concatenate([nearest_distance(held_out, train), among_train.min(axis=1)])
    limit = np.quantile(real, EXPECTED_SHARE)
    return float((nearest_distance(synthetic, train) < limit).mean())


def nearest_distance(points: Float64Array, train: Float64Array) -> Float64Array:
    """Returns the distance of each of (n, d) points to the nearest of (m, d) others; (n,)."""
    nearest: Float64Array = cdist(points, train).min(axis=1)
    return nearest


def share_below_limit(distance: Float64Array) -> Statistic:
    """Returns the share of the first group below the 5 % quantile of the second.

    Parameters
    ----------
    distance : (n,), of the pooled volumes.
    """

    def share(first: Float64Array, second: Float64Array) -> float:
        limit = np.quantile(distance[second > 0], EXPECTED_SHARE)
        return float((distance[first > 0] < limit).mean())

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        return np.array([share(a, b) for a, b in zip(first, second, strict=True)])[:, None]

    return statistic
