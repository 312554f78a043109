"""Regional means and their change with age."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition

Array = NDArray[np.float32]
Table = NDArray[np.float64]

# Mean FA above which a voxel is white matter in most of a cohort.
_WHITE_MATTER_FA = 0.35


def region_means(images: Array, labels: NDArray[np.int32], regions: Sequence[int]) -> Table:
    """Mean of each region, (n, regions), of (n, X, Y, Z) images."""
    columns = [images[:, labels == region].mean(axis=1, dtype=np.float64) for region in regions]
    return np.stack(columns, axis=1)


def white_matter(fa: Array) -> NDArray[np.bool_]:
    """Voxels (X, Y, Z) that are white matter in the average of real (n, X, Y, Z) FA images."""
    core: NDArray[np.bool_] = fa.mean(axis=0) > _WHITE_MATTER_FA
    return core


def age_slope(values: Table, conditions: Sequence[Condition]) -> float:
    """Least-squares change of (n,) values per decade, sex held fixed."""
    age = np.array([c.age for c in conditions]) / 10
    male = np.array([c.sex == "M" for c in conditions], dtype=float)
    design = np.stack([np.ones_like(age), age, male], axis=1)
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    return float(coefficients[1])
