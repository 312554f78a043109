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

from cohort.regression import Array, design, regress
from contracts.condition import Condition


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
