"""The regression of voxel values on age, sex and site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.errors import UserError

Array = NDArray[np.float32]


def design(conditions: Sequence[Condition], sites: Sequence[str] = ()) -> NDArray[np.float64]:
    """Returns the design matrix (n, 4 + S): 1, age, age squared, sex, and `contrasts` of sites.

    Each column is of order one. The square lets ageing accelerate, as that of FA and MD does
    after the age of 60.
    """
    age = (np.array([c.age for c in conditions], dtype=np.float64) - 50.0) / 20.0
    male = np.array([0.5 if c.sex == "M" else -0.5 for c in conditions])
    known = np.stack([np.ones_like(age), age, age**2, male], axis=1)
    return np.concatenate([known, contrasts(conditions, sites)], axis=1)


def contrasts(conditions: Sequence[Condition], sites: Sequence[str]) -> NDArray[np.float64]:
    """Returns the sum coding of K sites, (n, S) with S = K - 1, or 0 where sites are not modelled.

    Each site but the last has a 1 in its own column, the last has -1 in all of them. A condition
    without site has zeros: the average of the sites, each counted once.

    Raises
    ------
    UserError : if a condition names another site.
    """
    rows = np.zeros((len(conditions), max(len(sites) - 1, 0)))
    for row, condition in zip(rows, conditions, strict=True):
        if condition.site is None:
            continue
        if condition.site not in sites:
            known = f"the sites {', '.join(sites)}" if sites else "no site: it was not told sites"
            raise UserError(f"unknown site '{condition.site}': this generator knows {known}")
        k = sites.index(condition.site)
        row[k : k + 1] = 1
        if k == len(sites) - 1:
            row[:] = -1
    return rows


def regress(
    values: Sequence[Array] | Array, conditions: Sequence[Condition], sites: Sequence[str] = ()
) -> Array:
    """Returns the least-squares coefficients (4 + S, ...) of (n, ...) values on `design`.

    The values are read one after the other, so that they may be a memory map of any length.
    """
    inverse = np.linalg.pinv(design(conditions, sites))
    coefficients = np.zeros((len(inverse), *values[0].shape))
    for weights, value in zip(inverse.T, values, strict=True):
        for k, weight in enumerate(weights):
            coefficients[k] += weight * value
    return coefficients.astype(np.float32)
