"""Distances between points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def squared_distances(a: Points, b: Points) -> Points:
    """Squared Euclidean distances, (n, m), of (n, d) and (m, d) points."""
    distances: Points = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
    return np.maximum(distances, 0)


def median_distance(points: Points) -> float:
    """Median distance between two of (n, d) points: the usual width of an RBF kernel."""
    upper = np.triu_indices(len(points), k=1)
    return float(np.median(np.sqrt(squared_distances(points, points)[upper])))
