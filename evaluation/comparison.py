"""Permutation tests that compare a synthetic with a real group by many measures at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.results import Answer, Finding, Question, Verdict

Float64Array = NDArray[np.float64]
# A statistic takes the membership (rows, volumes) of the first and of the second group, 1 or 0
# each, and returns (rows, columns) values: one row per way to form the groups.
Statistic = Callable[[Float64Array, Float64Array], Float64Array]
Tail = Literal["above", "below", "both"]

# Level of a question's test. It is half of the 5 % of false alarms that are promised, since the
# subjects of a real cohort are not quite exchangeable and permutations do not know that.
ALPHA = 0.025
_NORMAL_QUANTILE = 1.959964
_MIN_PER_GROUP = 4
# A question passes only if a difference of this many tolerances would have been found.
_DETECTABLE_TOLERANCES = 3.0
# The jackknife leaves out single volumes up to this number per group, and blocks of volumes beyond
# (Kott 2001), so that its cost grows linearly with the volumes.
_MAX_JACKKNIFE_BLOCKS = 40


@dataclass(frozen=True, slots=True)
class Measure:
    """A statistic of two groups, and what its values mean.

    Parameters
    ----------
    name, label, unit : see `evaluation.results.Finding`.
    statistic : has one column, or one per entry of `columns`.
    tail : ``above``: only values larger than expected count against the synthetic group.
    tolerance : in `unit`, after the multiplication by `unit_factor`; None: the measure is
        reported and decides nothing.
    unit_factor : converts the statistic's unit to `unit`.
    columns : the names of the statistic's columns, e.g. regions; the finding shows the column
        with the largest difference and lists all.
    min_per_group : the measure is not computed for groups with fewer volumes.
    chance : what the finding shows where the groups do not differ, see
        `evaluation.results.Finding`. The tolerance is a distance from it.
    limits : the lowest and the highest possible value, where the finding's interval ends.
    """

    name: str
    label: str
    unit: str
    statistic: Statistic
    tail: Tail = "both"
    tolerance: float | None = None
    unit_factor: float = 1.0
    columns: Sequence[str] = ()
    min_per_group: int = _MIN_PER_GROUP
    chance: float = 0.0
    limits: tuple[float, float] = (-math.inf, math.inf)


@dataclass(frozen=True, slots=True)
class _Score:
    """The values of one measure and their distribution over permutations.

    Parameters
    ----------
    value : (columns,), observed values less their means over permutations.
    half_width : (columns,), of the 95 % intervals.
    z : (columns,), observed values, standardised by the column's distribution over permutations
        and then by that of the largest column.
    largest : (permutations,), the largest column of each permutation, standardised likewise.
    centre, scale : mean and standard deviation of the largest column before its own
        standardisation.
    """

    measure: Measure
    value: Float64Array
    half_width: Float64Array
    z: Float64Array
    largest: Float64Array
    centre: float
    scale: float

    def shown(self, difference: Float64Array) -> Float64Array:
        """Returns differences as the finding shows them."""
        low, high = self.measure.limits
        shown: Float64Array = np.clip(self.measure.chance + difference, low, high)
        return shown


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of a synthetic with a real group.

    Each statistic is computed for the two groups, for random permutations of the group labels
    over all volumes, and with each volume (or one of 40 blocks) left out. Its value is reported
    less its mean over permutations. So the value is zero on average where the groups do not
    differ, even for a biased statistic. The 95 % interval is the normal one with the larger of
    two standard errors, that over permutations and that of the jackknife.

    The p-values are adjusted for all measures that decide a question: an observed value is
    compared with the largest standardised value of all measures in each permutation (Westfall &
    Young 1993, single-step maxT). A measure with many columns takes part with its largest column,
    which is standardised once more, so that it does not outweigh a measure with one column.

    Parameters
    ----------
    n, m : the numbers of synthetic and of real volumes; pooled, the synthetic ones come first.
    permutations : their number; the smallest p-value is 1 / (1 + permutations).
    seed : of the permutations.
    """

    n: int
    m: int
    permutations: int = 300
    seed: int = 0
    _first: Float64Array = field(init=False, repr=False)
    _second: Float64Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        total = self.n + self.m
        observed = np.zeros(total)
        observed[: self.n] = 1
        rng = np.random.default_rng(self.seed)
        permuted = np.stack([rng.permutation(observed) for _ in range(self.permutations)])
        kept = np.concatenate(
            [_jackknife_rows(self.n, total, 0), _jackknife_rows(self.m, total, self.n)]
        )
        first = np.concatenate([observed[None], permuted, observed * kept])
        second = np.concatenate([1 - observed[None], 1 - permuted, (1 - observed) * kept])
        object.__setattr__(self, "_first", first)
        object.__setattr__(self, "_second", second)

    def answer(
        self,
        question: Question,
        measures: Sequence[Measure],
        yardsticks: Mapping[str, Mapping[str, float]],
        extra: Sequence[Finding] = (),
    ) -> Answer:
        """Computes all measures of a question and its verdict.

        Parameters
        ----------
        yardsticks : name of a reference set -> name of a measure -> value, which the findings
            show beside their own.
        extra : findings of other methods, which also count for the verdict.
        """
        computed = [m for m in measures if min(self.n, self.m) >= m.min_per_group]
        scores = [self._score(m) for m in computed]
        deciding = [s for s in scores if s.measure.tolerance is not None]
        largest = (
            np.stack([s.largest for s in deciding]).max(axis=0)
            if deciding
            else np.zeros(self.permutations)
        )
        findings = [self._finding(s, largest, yardsticks) for s in scores]
        findings += [
            Finding(m.name, m.label, m.unit, math.nan, math.nan, math.nan, m.tolerance,
                    verdict="n too small", needed=m.min_per_group)
            for m in measures
            if m not in computed
        ]  # fmt: skip
        findings += [replace(f, yardsticks=_values_of(f.name, yardsticks)) for f in extra]
        return conclude(question, findings)

    def values(self, measures: Sequence[Measure]) -> dict[str, float]:
        """Returns name -> value of each measure that the groups are large enough for."""
        values = {}
        for measure in measures:
            if min(self.n, self.m) >= measure.min_per_group:
                score = self._score(measure)
                worst = int(np.argmax(score.z))
                values[measure.name] = float(score.shown(score.value)[worst])
        return values

    def _score(self, measure: Measure) -> _Score:
        table = measure.statistic(self._first, self._second) * measure.unit_factor
        table = table.reshape(len(self._first), -1)
        observed, permuted = table[0], table[1 : 1 + self.permutations]
        jackknife = table[1 + self.permutations :]
        mean, deviation = permuted.mean(axis=0), np.maximum(permuted.std(axis=0, ddof=1), 1e-12)
        blocks = min(self.n, _MAX_JACKKNIFE_BLOCKS)
        variance = _jackknife_variance(jackknife[:blocks]) + _jackknife_variance(jackknife[blocks:])
        half_width = _NORMAL_QUANTILE * np.maximum(deviation, np.sqrt(variance))
        sign = {"above": 1.0, "below": -1.0, "both": 0.0}[measure.tail]

        def standardised(values: Float64Array) -> Float64Array:
            z = (values - mean) / deviation
            signed: Float64Array = np.abs(z) if sign == 0 else sign * z
            return signed

        largest = standardised(permuted).max(axis=1)
        centre, scale = float(largest.mean()), max(float(largest.std(ddof=1)), 1e-12)
        return _Score(
            measure,
            observed - mean,
            half_width,
            (standardised(observed) - centre) / scale,
            (largest - centre) / scale,
            centre,
            scale,
        )

    def _finding(
        self, score: _Score, largest: Float64Array, yardsticks: Mapping[str, Mapping[str, float]]
    ) -> Finding:
        """Returns the finding of a measure.

        Parameters
        ----------
        largest : (permutations,), the largest standardised value of all deciding measures.
        """
        measure, worst = score.measure, int(np.argmax(score.z))
        p = (1 + (largest[:, None] >= score.z).sum(axis=0)) / (1 + len(largest))
        verdict: Verdict = "not measured"
        needed = None
        if measure.tolerance is not None:
            failing = (p <= ALPHA) & (np.abs(score.value) > measure.tolerance)
            # The smallest difference that would be significant, first as a standardised value
            # and then in the unit of the measure.
            critical_z = np.quantile(largest, 1 - ALPHA) * score.scale + score.centre
            detectable = critical_z * score.half_width / _NORMAL_QUANTILE
            required = _DETECTABLE_TOLERANCES * measure.tolerance
            ratio = float(np.median(detectable) / required)
            if failing.any():
                verdict = "fail"
                worst = int(np.argmax(np.where(failing, score.z, -np.inf)))
            elif ratio > 1:
                verdict, needed = "n too small", math.ceil(min(self.n, self.m) * ratio**2)
            else:
                verdict = "pass"
        half_width = score.half_width
        value = score.shown(score.value)
        low, high = score.shown(score.value - half_width), score.shown(score.value + half_width)
        label = measure.label
        if measure.columns:
            label += f" (of {len(measure.columns)}, most unlike: {measure.columns[worst]})"
        return Finding(
            name=measure.name,
            label=label,
            unit=measure.unit,
            value=float(value[worst]),
            low=float(low[worst]),
            high=float(high[worst]),
            tolerance=measure.tolerance,
            p=float(p[worst]) if measure.tolerance is not None else None,
            verdict=verdict,
            needed=needed,
            yardsticks=_values_of(measure.name, yardsticks),
            details={
                column: (float(value[i]), float(low[i]), float(high[i]))
                for i, column in enumerate(measure.columns)
            },
            chance=measure.chance,
        )


def conclude(question: Question, findings: Sequence[Finding]) -> Answer:
    """Returns the verdict that follows from the deciding findings, and a sentence about it."""
    deciding = [f for f in findings if f.tolerance is not None]
    failing = [f for f in deciding if f.verdict == "fail"]
    small = [f for f in deciding if f.verdict == "n too small"]
    if failing:
        names = ", ".join(_within_sentence(f.label) for f in failing[:3])
        more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
        return Answer(question, "fail", f"Differs from real: {names}{more}.", tuple(findings))
    if small:
        needed = max(f.needed or 0 for f in small)
        words = f"n too small to tell: about {needed} volumes per side are needed."
        return Answer(question, "n too small", words, tuple(findings))
    if not deciding:
        return Answer(
            question, "not measured", "Nothing that decides was measured.", tuple(findings)
        )
    return Answer(question, "pass", "No difference from real that matters.", tuple(findings))


def _values_of(name: str, yardsticks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {k: values[name] for k, values in yardsticks.items() if name in values}


def _within_sentence(label: str) -> str:
    """Lowers the first letter of ``Predicted age`` but not that of ``FA``."""
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _jackknife_rows(size: int, total: int, start: int) -> Float64Array:
    """Returns (blocks, total) rows, each 0 for one block of the `size` volumes from `start` on."""
    count = min(size, _MAX_JACKKNIFE_BLOCKS)
    rows = np.ones((count, total))
    for k in range(count):
        rows[k, start + k : start + size : count] = 0
    return rows


def _jackknife_variance(values: Float64Array) -> Float64Array:
    """Returns the jackknife variance of a statistic from (blocks, columns) values."""
    n = len(values)
    variance: Float64Array = (n - 1) / n * ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return variance


def weights(group: Float64Array) -> Float64Array:
    """Returns membership (rows, volumes) as weights of a mean, so that each row sums to one."""
    normalised: Float64Array = group / group.sum(axis=1, keepdims=True)
    return normalised


def mean_difference(values: Float64Array) -> Statistic:
    """Returns the mean of the first group less that of the second, per column.

    Parameters
    ----------
    values : (volumes, columns).
    """

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        difference: Float64Array = (weights(first) - weights(second)) @ values
        return difference

    return statistic
