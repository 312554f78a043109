"""The Pareto front of trials and the hypervolume it covers; less is better in all objectives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


def front(values: Float64Array) -> NDArray[np.bool_]:
    """Returns which of (n, objectives) points no other point dominates.

    A point dominates another one if it is nowhere worse and somewhere better.
    """
    no_worse = (values[:, None] <= values[None]).all(axis=2)
    better = (values[:, None] < values[None]).any(axis=2)
    kept: NDArray[np.bool_] = np.logical_not((no_worse & better).any(axis=0))
    return kept


def hypervolume(values: Float64Array, reference: Float64Array) -> float:
    """Returns the volume between (n, objectives) points and a reference that they dominate.

    Points that are not better than the reference in every objective add nothing. The measure
    is that of Zitzler & Thiele 1998; by slices along the last objective, exact for any number of
    objectives, and fast enough for the few hundred points of a study.
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, -1])]
    ends = np.append(inside[1:, -1], reference[-1])
    return float(
        sum(
            (end - start) * hypervolume(inside[: i + 1, :-1], reference[:-1])
            for i, (start, end) in enumerate(zip(inside[:, -1], ends, strict=True))
            if end > start
        )
    )
