"""Regression of voxel values on age, sex and site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.errors import UserError

Array = NDArray[np.float32]


def design(conditions: Sequence[Condition], sites: Sequence[str] = ()) -> NDArray[np.float64]:
    """Regressors 1, age, age squared, sex, each of order one, and those of `contrasts`; (n, 4 + S).

    The square lets ageing accelerate, as that of FA and MD does after 60.
    """
    age = (np.array([c.age for c in conditions], dtype=np.float64) - 50.0) / 20.0
    male = np.array([0.5 if c.sex == "M" else -0.5 for c in conditions])
    known = np.stack([np.ones_like(age), age, age**2, male], axis=1)
    return np.concatenate([known, contrasts(conditions, sites)], axis=1)


def contrasts(conditions: Sequence[Condition], sites: Sequence[str]) -> NDArray[np.float64]:
    """Sum coding of K sites, (n, S) with S = K - 1, or 0 where none are told apart.

    A 1 for each site's own column, -1 in all columns for the last site, zeros for no particular
    one: that is the average of the sites, each counted once.

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
    """Least-squares coefficients (4 + S, ...) of (n, ...) values on `design`.

    One value after the other is read, so that `values` may be a memory map of any length.
    """
    inverse = np.linalg.pinv(design(conditions, sites))
    coefficients = np.zeros((len(inverse), *values[0].shape))
    for weights, value in zip(inverse.T, values, strict=True):
        for k, weight in enumerate(weights):
            coefficients[k] += weight * value
    return coefficients.astype(np.float32)
