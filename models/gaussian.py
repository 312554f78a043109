"""The conditional Gaussian: a regression on age and sex, and principal components of the rest.

It is the baseline that a generator has to beat: it takes a second to fit and is hard to beat on
mean maps and spectra. Its draws are blends of the training subjects, though: on 96 simulated
subjects the components explained all of the training variance and under a tenth of new
subjects', which is why our generators start from the regression alone (`models.prior`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class ConditionalGaussian:
    """x = mean(condition) + components^T z with z_k ~ N(0, sd_k^2).

    Parameters
    ----------
    coefficients : (4, D) regression of each of D values on `design`.
    components : (K, D) orthonormal rows, largest variance first.
    sd : (K,) standard deviation along each component.
    """

    coefficients: Array
    components: Array
    sd: Array

    @classmethod
    def fit(
        cls, values: Array, conditions: Sequence[Condition], rank: int | None = None
    ) -> ConditionalGaussian:
        """Fit to (n, D) values, with all n - 4 components or the first `rank`.

        The components are those of the regression's residuals, whose n - 4 degrees of freedom
        scale the variances.
        """
        coefficients = regress(values, conditions)
        residual = values - design(conditions) @ coefficients
        freedom = max(len(values) - len(coefficients), 1)
        # n is far below D: the eigenvectors come from the small (n, n) Gram matrix.
        variance, vectors = np.linalg.eigh(residual @ residual.T)
        order = np.argsort(variance)[::-1][: min(rank or freedom, freedom)]
        length = np.sqrt(np.maximum(variance[order], 1e-12))
        components = (vectors[:, order] / length).T @ residual
        return cls(
            coefficients=coefficients,
            components=components.astype(np.float32),
            sd=(length / np.sqrt(freedom)).astype(np.float32),
        )

    def mean(self, conditions: Sequence[Condition]) -> Array:
        """Expected values, shape (n, D)."""
        return (design(conditions) @ self.coefficients).astype(np.float32)

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> Array:
        """One draw per condition, fixed by its seed alone; shape (n, D)."""
        k = len(self.sd)
        z = [np.random.default_rng(seed).standard_normal(k, dtype=np.float32) for seed in seeds]
        return (self.mean(conditions) + (np.stack(z) * self.sd) @ self.components).astype(
            np.float32
        )
