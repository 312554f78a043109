"""Is the anatomy right? Regions, tissues, sides, ageing and sex, and what was asked for."""

from __future__ import annotations

import numpy as np

from evaluation.comparison import Measure, Statistic, Table, mean_difference, weights
from evaluation.fidelity import standardised
from evaluation.finding import Finding
from evaluation.profile import TISSUES, Frame, Profiles

# A ridge regression on a few hundred standardised features: the penalty of one subject per feature.
_RIDGE = 1.0
_POSSIBLE = 1e-4


def measures(pooled: Profiles, train: Profiles, frame: Frame) -> list[Measure]:
    """What anatomy is judged by.

    Differences d are in standard deviations of real subjects of one age and sex (Cohen's d, 0.5
    is called medium); slopes are differences in d per decade.
    """
    spread = _Spread(train)
    out = []
    for k, spec in enumerate(frame.maps):
        y, z = spread(train.regions[:, k], pooled.regions[:, k], pooled)
        out += [
            Measure(f"{spec.name}_regions", f"{spec.label} of regions", "d", adjusted(y, pooled),
                    "both", 0.5, parts=frame.names),
            Measure(f"{spec.name}_age", f"{spec.label} per decade of age", "d",
                    effect(y, pooled, 1), "both", 0.2, 10.0, frame.names),
            Measure(f"{spec.name}_sex", f"{spec.label}, women to men", "d", effect(y, pooled, 2),
                    "both", 0.7, parts=frame.names),
            Measure(f"{spec.name}_covariance", f"{spec.label}, correlations between regions", "",
                    correlations(z), "above", 0.1),
        ]  # fmt: skip
        y, _ = spread(train.asymmetry[:, k], pooled.asymmetry[:, k], pooled)
        out.append(
            Measure(f"{spec.name}_asymmetry", f"{spec.label}, left to right", "d",
                    adjusted(y, pooled), "both", 0.5, parts=frame.names)
        )  # fmt: skip
    y, _ = spread(train.coupling[:, None], pooled.coupling[:, None], pooled)
    out.append(Measure("coupling", "Correlation of FA and MD in white matter", "d",
                       adjusted(y, pooled), "both", 0.5))  # fmt: skip
    y, _ = spread(train.tissues, pooled.tissues, pooled)
    out.append(Measure("tissues", "Tissue volumes", "d", adjusted(y, pooled), "both", 0.5,
                       parts=TISSUES))  # fmt: skip
    overlap = dice(pooled, train)
    out.append(Measure("dice", "Dice of white matter with what its age and sex let expect", "",
                       mean_difference(overlap[:, None]), "below", 0.03))  # fmt: skip
    found = predicted_age(pooled, train)
    error = mean_difference(np.abs(found - pooled.age)[:, None])
    out.append(Measure("adherence", "Error of the age that is read from features", "years", error,
                       "above", 3.0))  # fmt: skip
    return out


def validity(synthetic: Profiles) -> Finding:
    """Share of impossible voxels in the worst volume; more than 1 in 10,000 fails."""
    worst = float(synthetic.invalid.max())
    return Finding(
        "validity", "Impossible voxels in the worst volume", "", worst, worst, worst, _POSSIBLE,
        verdict="fail" if worst > _POSSIBLE else "pass",
    )  # fmt: skip


def agreement(synthetic: Profiles, real: Profiles, frame: Frame) -> list[Finding]:
    """Bland & Altman's (1986) limits of agreement of regional means, in physical units.

    A pair is a region: its mean over synthetic and over real volumes. The interval is the limits,
    which hold 95 % of regions' differences, not a confidence interval.
    """
    out = []
    for k, spec in enumerate(frame.maps):
        unit, factor = ("", 1.0) if spec.name == "fa" else ("um2/s", 1e6)
        gap = factor * (synthetic.regions[:, k].mean(axis=0) - real.regions[:, k].mean(axis=0))
        bias, half = float(gap.mean()), 1.959964 * float(gap.std(ddof=1))
        details = {n: (float(g), float(g), float(g)) for n, g in zip(frame.names, gap, strict=True)}
        label = f"{spec.label} of regions, mean difference [limits of agreement]"
        out.append(Finding(f"{spec.name}_agreement", label, unit, bias, bias - half, bias + half,
                           details=details))  # fmt: skip
    return out


class _Spread:
    """Puts values in units of real subjects' spread around their expectation for age and sex."""

    def __init__(self, train: Profiles) -> None:
        self._design = design(train)

    def __call__(self, known: Table, values: Table, pooled: Profiles) -> tuple[Table, Table]:
        """Values, and values less their expectation; (n, columns) each.

        Parameters
        ----------
        known, values : of the training and of the pooled subjects.
        """
        coefficients, *_ = np.linalg.lstsq(self._design, known, rcond=None)
        left = known - self._design @ coefficients
        sd = np.sqrt((left**2).sum(axis=0) / max(len(known) - self._design.shape[1], 1))
        sd = np.where(sd > 0, sd, 1)
        return values / sd, (values - design(pooled) @ coefficients) / sd


def design(profiles: Profiles) -> Table:
    """Regressors 1, age, age squared and sex, of order one."""
    age = (profiles.age - 50) / 20
    return np.stack([np.ones_like(age), age, age**2, profiles.male - 0.5], axis=1)


def adjusted(values: Table, pooled: Profiles) -> Statistic:
    """Difference of means, age and sex held fixed by a regression over both groups."""
    x = design(pooled)
    coefficients, *_ = np.linalg.lstsq(x, values, rcond=None)
    return mean_difference(values - x[:, 1:] @ coefficients[1:])


def effect(values: Table, pooled: Profiles, which: int) -> Statistic:
    """Difference between two groups' regression coefficients: 1 per year of age, 2 of men over
    women."""
    x = np.stack([np.ones(len(pooled)), pooled.age - 50, pooled.male - 0.5], axis=1)
    squares = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    products = (x[:, :, None] * values[:, None, :]).reshape(len(x), -1)

    def slope(group: Table) -> Table:
        left = (weights(group) @ squares).reshape(-1, 3, 3)
        right = (weights(group) @ products).reshape(-1, 3, values.shape[1])
        # A group of one sex, or of one age, has no such effect; diversity tells of that.
        known = np.abs(np.linalg.det(left)) > 1e-6
        left[~known] = np.eye(3)
        out: Table = np.linalg.solve(left, right)[:, which]
        out[~known] = np.nan
        return out

    def statistic(first: Table, second: Table) -> Table:
        difference: Table = np.nan_to_num(slope(first) - slope(second))
        return difference

    return statistic


def correlations(values: Table) -> Statistic:
    """Mean absolute difference between two groups' correlations of columns."""
    outer = (values[:, :, None] * values[:, None, :]).reshape(len(values), -1)
    count = values.shape[1]
    upper = np.triu_indices(count, k=1)

    def matrix(group: Table) -> Table:
        share = weights(group)
        mean = share @ values
        square = (share @ outer).reshape(-1, count, count)
        covariance = square - mean[:, :, None] * mean[:, None, :]
        sd = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-12))
        out: Table = covariance / (sd[:, :, None] * sd[:, None, :])
        return out[:, upper[0], upper[1]]

    def statistic(first: Table, second: Table) -> Table:
        difference: Table = np.abs(matrix(first) - matrix(second)).mean(axis=1)
        return difference[:, None]

    return statistic


def dice(profiles: Profiles, train: Profiles) -> Table:
    """Dice overlap of each volume's white matter with that expected of its age and sex, (n,).

    Expected: voxels that are white matter in more than half of real subjects, by a regression of
    membership on age and sex.
    """
    known = train.white.reshape(len(train), -1)
    # Elsewhere all agree, or nearly: no regression is needed to know.
    unsure = (known.mean(axis=0) > 0.02) & (known.mean(axis=0) < 0.98)
    always = int((known.mean(axis=0) >= 0.98).sum())
    x = design(train)
    coefficients, *_ = np.linalg.lstsq(x, known[:, unsure].astype(np.float64), rcond=None)
    flat = profiles.white.reshape(len(profiles), -1)
    sure = flat[:, known.mean(axis=0) >= 0.98].sum(axis=1)
    expected = design(profiles) @ coefficients > 0.5
    overlap = (expected & flat[:, unsure]).sum(axis=1) + sure
    size = expected.sum(axis=1) + always + flat.sum(axis=1)
    out: Table = 2 * overlap / np.maximum(size, 1)
    return out


def predicted_age(profiles: Profiles, train: Profiles) -> Table:
    """Age that a ridge regression fitted to real subjects reads from features, (n,)."""
    known = standardised(train.features, train.features)
    points = standardised(profiles.features, train.features)
    gram = known @ known.T / known.shape[1]
    mean = train.age.mean()
    dual = np.linalg.solve(gram + _RIDGE * np.eye(len(known)) / 10, train.age - mean)
    out: Table = mean + points @ known.T / known.shape[1] @ dual
    return out
