"""Values in standard deviations of real people, and differences adjusted for age and sex."""

from __future__ import annotations

import numpy as np

from cohort.regression import design
from evaluation.comparison import Float64Array, Statistic, mean_difference
from evaluation.measurements import Measurements


class AgeSexStandardiser:
    """Expresses values in standard deviations between real subjects of one age and sex."""

    def __init__(self, train: Measurements) -> None:
        self._design = design(train.conditions)

    def __call__(
        self, known: Float64Array, values: Float64Array, pooled: Measurements
    ) -> tuple[Float64Array, Float64Array]:
        """Returns scaled values and their scaled residuals from age and sex, (n, columns) each.

        Parameters
        ----------
        known : (m, columns), values of the training subjects.
        values : (n, columns), values of the pooled volumes.
        """
        coefficients, *_ = np.linalg.lstsq(self._design, known, rcond=None)
        residual = known - self._design @ coefficients
        freedom = max(len(known) - self._design.shape[1], 1)
        sd = np.sqrt((residual**2).sum(axis=0) / freedom)
        sd = np.where(sd > 0, sd, 1)
        return values / sd, (values - design(pooled.conditions) @ coefficients) / sd


def adjusted(values: Float64Array, pooled: Measurements) -> Statistic:
    """Returns the difference of means, adjusted for age and sex.

    Parameters
    ----------
    values : (n, columns), regressed on age and sex over both groups together.
    """
    x = design(pooled.conditions)
    coefficients, *_ = np.linalg.lstsq(x, values, rcond=None)
    return mean_difference(values - x[:, 1:] @ coefficients[1:])
