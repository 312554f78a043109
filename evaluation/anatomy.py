"""The question of anatomy: regions, tissues, hemispheres, and the effects of age and sex."""

from __future__ import annotations

import numpy as np

from cohort.regression import design
from evaluation.age_sex import AgeSexStandardiser, adjusted
from evaluation.block_features import standardised
from evaluation.comparison import Float64Array, Measure, Statistic, mean_difference, weights
from evaluation.measurement_grid import MeasurementGrid
from evaluation.measurements import TISSUES, Measurements
from evaluation.results import Finding

# Penalty of the ridge regression of age on features, for a kernel whose diagonal is about one.
_AGE_RIDGE = 0.1
_MAX_INVALID_SHARE = 1e-4
# In more, or fewer, of the real brains than these shares, a voxel is white matter at every age, or
# at none, and needs no regression.
_RARELY, _NEARLY_ALWAYS = 0.02, 0.98
# Columns of the regression in `effect`, whose first is the intercept.
_AGE, _MALE = 1, 2


def measures(pooled: Measurements, train: Measurements, grid: MeasurementGrid) -> list[Measure]:
    """Returns the measures of anatomy.

    Differences d are in standard deviations between real subjects of one age and sex (Cohen's d,
    of which 0.5 is called medium). Effects of age are differences in d per decade.

    Parameters
    ----------
    pooled : of the synthetic and, after them, of the held-out real volumes.
    train : of the real subjects that the generator was trained on.
    """
    standardise = AgeSexStandardiser(train)
    regions = grid.region_names
    found = []
    for k, spec in enumerate(grid.maps):
        y, residual = standardise(train.regions[:, k], pooled.regions[:, k], pooled)
        found += [
            Measure(f"{spec.name}_regions", f"{spec.label} of regions", "d", adjusted(y, pooled),
                    "both", 0.5, columns=regions),
            Measure(f"{spec.name}_age", f"{spec.label} per decade of age", "d",
                    effect(y, pooled, _AGE), "both", 0.2, 10.0, regions),
            Measure(f"{spec.name}_sex", f"{spec.label}, women to men", "d",
                    effect(y, pooled, _MALE), "both", 0.7, columns=regions),
            Measure(f"{spec.name}_covariance", f"{spec.label}, correlations between regions", "",
                    correlations(residual), "above", 0.1),
        ]  # fmt: skip
        y, _ = standardise(train.asymmetry[:, k], pooled.asymmetry[:, k], pooled)
        found.append(
            Measure(f"{spec.name}_asymmetry", f"{spec.label}, left to right", "d",
                    adjusted(y, pooled), "both", 0.5, columns=regions)
        )  # fmt: skip
    y, _ = standardise(train.coupling[:, None], pooled.coupling[:, None], pooled)
    found.append(Measure("coupling", "Correlation of FA and MD in white matter", "d",
                         adjusted(y, pooled), "both", 0.5))  # fmt: skip
    y, _ = standardise(train.tissues, pooled.tissues, pooled)
    found.append(Measure("tissues", "Tissue volumes", "d", adjusted(y, pooled), "both", 0.5,
                         columns=TISSUES))  # fmt: skip
    overlap = dice(pooled, train)
    found.append(Measure("dice", "Dice of white matter with what its age and sex let expect", "",
                         mean_difference(overlap[:, None]), "below", 0.03))  # fmt: skip
    error = np.abs(predicted_age(pooled, train) - pooled.age)
    found.append(Measure("adherence", "Error of the age that is read from features", "years",
                         mean_difference(error[:, None]), "above", 3.0))  # fmt: skip
    return found


def validity(synthetic: Measurements) -> Finding:
    """Returns the share of impossible voxels in the worst volume; above 1 in 10,000 it fails."""
    worst = float(synthetic.invalid.max())
    return Finding(
        "validity", "Impossible voxels in the worst volume", "", worst, worst, worst,
        _MAX_INVALID_SHARE, verdict="fail" if worst > _MAX_INVALID_SHARE else "pass",
    )  # fmt: skip


def agreement(synthetic: Measurements, real: Measurements, grid: MeasurementGrid) -> list[Finding]:
    """Returns the limits of agreement of regional means in physical units, one finding per map.

    The limits are those of Bland & Altman (1986): mean difference plus and minus 1.96 standard
    deviations, here over regions, whose means are taken over all volumes of a set. They contain
    95 % of the regions' differences and are not a confidence interval.
    """
    findings = []
    for k, spec in enumerate(grid.maps):
        unit, factor = ("", 1.0) if spec.name == "fa" else ("um2/s", 1e6)
        gap = factor * (synthetic.regions[:, k].mean(axis=0) - real.regions[:, k].mean(axis=0))
        bias, half_width = float(gap.mean()), 1.959964 * float(gap.std(ddof=1))
        details = {
            name: (float(g), float(g), float(g))
            for name, g in zip(grid.region_names, gap, strict=True)
        }
        label = f"{spec.label} of regions, mean difference [limits of agreement]"
        findings.append(Finding(f"{spec.name}_agreement", label, unit, bias, bias - half_width,
                                bias + half_width, details=details))  # fmt: skip
    return findings


def effect(values: Float64Array, pooled: Measurements, regressor: int) -> Statistic:
    """Returns the difference between two groups' coefficients of a regression on age and sex.

    A group of one sex, or of one age, has no such effect; its difference is zero, and the
    question of diversity says that the group lacks ages or a sex.

    Parameters
    ----------
    values : (n, columns).
    regressor : 1: per year of age, 2: men less women.
    """
    x = np.stack([np.ones(len(pooled)), pooled.age - 50, pooled.male - 0.5], axis=1)
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    products = (x[:, :, None] * values[:, None, :]).reshape(len(x), -1)

    def coefficient(group: Float64Array) -> Float64Array:
        left = (weights(group) @ squares).reshape(-1, 3, 3)
        right = (weights(group) @ products).reshape(-1, 3, values.shape[1])
        solvable = np.abs(np.linalg.det(left)) > 1e-6
        left[~solvable] = np.eye(3)
        solution: Float64Array = np.linalg.solve(left, right)[:, regressor]
        solution[~solvable] = np.nan
        return solution

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        difference: Float64Array = np.nan_to_num(coefficient(first) - coefficient(second))
        return difference

    return statistic


def correlations(values: Float64Array) -> Statistic:
    """Returns the mean absolute difference between two groups' correlation matrices.

    Parameters
    ----------
    values : (n, columns), between whose columns the correlations are.
    """
    outer = (values[:, :, None] * values[:, None, :]).reshape(len(values), -1)
    count = values.shape[1]
    upper = np.triu_indices(count, k=1)

    def matrix(group: Float64Array) -> Float64Array:
        share = weights(group)
        mean = share @ values
        square = (share @ outer).reshape(-1, count, count)
        covariance = square - mean[:, :, None] * mean[:, None, :]
        sd = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-12))
        correlation: Float64Array = covariance / (sd[:, :, None] * sd[:, None, :])
        return correlation[:, upper[0], upper[1]]

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        difference: Float64Array = np.abs(matrix(first) - matrix(second)).mean(axis=1)
        return difference[:, None]

    return statistic


def dice(volumes: Measurements, train: Measurements) -> Float64Array:
    """Returns the Dice overlap of each volume's white matter with the one expected, (n,).

    The expected white matter of an age and sex is where a linear regression of white-matter
    membership in the training subjects predicts more than one half.
    """
    known = train.white_matter.reshape(len(train), -1)
    share = known.mean(axis=0)
    always = share >= _NEARLY_ALWAYS
    varying = (share > _RARELY) & ~always
    coefficients, *_ = np.linalg.lstsq(
        design(train.conditions), known[:, varying].astype(np.float64), rcond=None
    )
    found = volumes.white_matter.reshape(len(volumes), -1)
    expected = design(volumes.conditions) @ coefficients > 0.5
    overlap = (expected & found[:, varying]).sum(axis=1) + found[:, always].sum(axis=1)
    size = expected.sum(axis=1) + always.sum() + found.sum(axis=1)
    coefficient: Float64Array = 2 * overlap / np.maximum(size, 1)
    return coefficient


def predicted_age(volumes: Measurements, train: Measurements) -> Float64Array:
    """Returns the age that a ridge regression on features, fitted to `train`, predicts; (n,)."""
    known = standardised(train.features, train.features)
    points = standardised(volumes.features, train.features)
    gram = known @ known.T / known.shape[1]
    mean = train.age.mean()
    dual = np.linalg.solve(gram + _AGE_RIDGE * np.eye(len(known)), train.age - mean)
    age: Float64Array = mean + points @ known.T / known.shape[1] @ dual
    return age
