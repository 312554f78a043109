"""Whether synthetic volumes are copies of training subjects."""

from __future__ import annotations

import numpy as np

from evaluation.distance import Points
from evaluation.features import squared_distances

# Of held-out subjects this share is nearer to a training subject than the limit, by construction.
EXPECTED_SHARE = 0.05


def nearest(points: Points, train: Points) -> Points:
    """Distance of each of (n, d) points to its nearest of (m, d) training points; (n,)."""
    distances: Points = np.sqrt(squared_distances(points, train).min(axis=1))
    return distances


def copy_share(synthetic: Points, held_out: Points, train: Points) -> float:
    """Share of synthetic points nearer to a training subject than all but 5 % of new ones are.

    A generator that copies nobody scores about `EXPECTED_SHARE`. The limit is a low quantile of
    few held-out subjects: with 20 of them it is near their smallest distance.
    """
    limit = np.quantile(nearest(held_out, train), EXPECTED_SHARE)
    return float((nearest(synthetic, train) < limit).mean())
