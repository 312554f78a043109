"""Two groups of subjects compared by many statistics at once, judged by shuffling who is who."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.finding import Answer, Finding, Question, Verdict

Table = NDArray[np.float64]
# (rows, subjects) membership of the first and of the second group -> (rows, columns) values
Statistic = Callable[[Table, Table], Table]
Tail = Literal["above", "below", "both"]

# A question is to be answered wrongly in at most 5 % of comparisons; half of that leaves room for
# what regroupings do not know (a real cohort's subjects are not quite exchangeable).
ALPHA = 0.025
_Z95 = 1.959964
_FEWEST = 4
# A verdict needs to see differences of this many tolerances.
_SEEN = 3.0
# Left out one subject at a time up to so many, groups of them beyond (Kott 2001): cost then grows
# with the subjects once, not twice.
_GROUPS = 40


@dataclass(frozen=True, slots=True)
class Measure:
    """A statistic and what its values mean.

    Parameters
    ----------
    statistic : one column, or one per entry of `parts`.
    tail : ``above``: only larger values than expected count against the synthetic set.
    tolerance : in `unit` after `factor`; None: reported, decides nothing.
    factor : from the statistic's unit to the reader's.
    parts : names of columns (regions, say); the finding shows the worst and lists all.
    needed : subjects per side below which it is not computed.
    """

    name: str
    label: str
    unit: str
    statistic: Statistic
    tail: Tail = "both"
    tolerance: float | None = None
    factor: float = 1.0
    parts: Sequence[str] = ()
    needed: int = _FEWEST


@dataclass(frozen=True, slots=True)
class _Scored:
    """Columns of one measure.

    Parameters
    ----------
    value, half : (columns,), values less their mean under shuffling; half widths of intervals.
    z : (columns,), standardised twice: by the column, and by the largest of all columns.
    shuffled : (shuffles,), the largest of all columns, standardised.
    centre, spread : of the largest column over shuffles, before its own standardisation.
    """

    measure: Measure
    value: Table
    half: Table
    z: Table
    shuffled: Table
    centre: float
    spread: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Synthetic against real subjects.

    A statistic is computed for the two groups, for random regroupings of all subjects (how far
    apart do two groups of one population come out?) and with each subject left out, or each of 40
    groups of them (how much hangs on one?). Its value is given less its mean over regroupings, so
    that it is zero on average where the groups do not differ, whatever its bias; its interval
    takes the larger of the two spreads.

    p-values are those of the largest standardised difference of all that decides a question
    (Westfall & Young 1993, single step), so that a question is answered wrongly in at most 2.5 %
    of comparisons of one population with itself. A measure of many columns counts by its
    largest one, standardised in turn, so that it does not drown a measure of one.

    Parameters
    ----------
    n, m : synthetic and real subjects; pooled, the synthetic ones come first.
    shuffles : regroupings.
    """

    n: int
    m: int
    shuffles: int = 300
    seed: int = 0
    _first: Table = field(init=False, repr=False)
    _second: Table = field(init=False, repr=False)

    def __post_init__(self) -> None:
        total = self.n + self.m
        observed = np.zeros(total)
        observed[: self.n] = 1
        rng = np.random.default_rng(self.seed)
        shuffled = np.stack([rng.permutation(observed) for _ in range(self.shuffles)])
        without = np.concatenate([_left_out(self.n, total, 0), _left_out(self.m, total, self.n)])
        first = np.concatenate([observed[None], shuffled, observed * without])
        second = np.concatenate([1 - observed[None], 1 - shuffled, (1 - observed) * without])
        object.__setattr__(self, "_first", first)
        object.__setattr__(self, "_second", second)

    def answer(
        self,
        question: Question,
        measures: Sequence[Measure],
        yardsticks: Mapping[str, Mapping[str, float]],
        extra: Sequence[Finding] = (),
    ) -> Answer:
        """Judge a question by all its measures.

        Parameters
        ----------
        yardsticks : set -> finding -> value, shown beside.
        extra : findings that were judged elsewhere.
        """
        possible = [m for m in measures if min(self.n, self.m) >= m.needed]
        scored = [self._score(m) for m in possible]
        deciding = [s for s in scored if s.measure.tolerance is not None]
        largest = (
            np.stack([s.shuffled for s in deciding]).max(axis=0)
            if deciding
            else np.zeros(self.shuffles)
        )
        findings = [self._finding(s, largest, yardsticks) for s in scored]
        findings += [
            Finding(m.name, m.label, m.unit, math.nan, math.nan, math.nan, m.tolerance,
                    verdict="n too small", needed=m.needed)
            for m in measures
            if m not in possible
        ]  # fmt: skip
        findings += [replace(f, yardsticks=_beside(f.name, yardsticks)) for f in extra]
        return conclude(question, findings)

    def values(self, measures: Sequence[Measure]) -> dict[str, float]:
        """The value of each measure alone, for yardsticks."""
        out = {}
        for measure in measures:
            if min(self.n, self.m) >= measure.needed:
                scored = self._score(measure)
                out[measure.name] = float(scored.value[int(np.argmax(scored.z))])
        return out

    def _score(self, measure: Measure) -> _Scored:
        table = measure.statistic(self._first, self._second) * measure.factor
        table = table.reshape(len(self._first), -1)
        observed, shuffled = table[0], table[1 : 1 + self.shuffles]
        left_out = table[1 + self.shuffles :]
        centre, spread = shuffled.mean(axis=0), np.maximum(shuffled.std(axis=0, ddof=1), 1e-12)
        ours = min(self.n, _GROUPS)
        variance = _jackknife(left_out[:ours]) + _jackknife(left_out[ours:])
        half = _Z95 * np.maximum(spread, np.sqrt(variance))
        sign = {"above": 1.0, "below": -1.0, "both": 0.0}[measure.tail]

        def standardised(values: Table) -> Table:
            z = (values - centre) / spread
            out: Table = np.abs(z) if sign == 0 else sign * z
            return out

        largest = standardised(shuffled).max(axis=1)
        middle, width = float(largest.mean()), max(float(largest.std(ddof=1)), 1e-12)
        return _Scored(
            measure,
            observed - centre,
            half,
            (standardised(observed) - middle) / width,
            (largest - middle) / width,
            middle,
            width,
        )

    def _finding(
        self, scored: _Scored, largest: Table, yardsticks: Mapping[str, Mapping[str, float]]
    ) -> Finding:
        measure, worst = scored.measure, int(np.argmax(scored.z))
        p = (1 + (largest[:, None] >= scored.z).sum(axis=0)) / (1 + len(largest))
        verdict: Verdict = "not measured"
        needed = None
        if measure.tolerance is not None:
            beyond = np.abs(scored.value) > measure.tolerance
            failing = (p <= ALPHA) & beyond
            # The smallest difference that would be beyond chance, in the unit of the value.
            least = np.quantile(largest, 1 - ALPHA) * scored.spread + scored.centre
            limit = least * scored.half / _Z95
            blind = float(np.median(limit) / (_SEEN * measure.tolerance))
            if failing.any():
                verdict = "fail"
                worst = int(np.argmax(np.where(failing, scored.z, -np.inf)))
            elif blind > 1:
                verdict, needed = "n too small", math.ceil(min(self.n, self.m) * blind**2)
            else:
                verdict = "pass"
        value, half = scored.value, scored.half
        low, high = value - half, value + half
        label = measure.label
        if measure.parts:
            label += f" (of {len(measure.parts)}, most unlike: {measure.parts[worst]})"
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
            yardsticks=_beside(measure.name, yardsticks),
            details={
                part: (float(value[i]), float(low[i]), float(high[i]))
                for i, part in enumerate(measure.parts)
            },
        )


def conclude(question: Question, findings: Sequence[Finding]) -> Answer:
    """The verdict that follows from what decides, in words."""
    deciding = [f for f in findings if f.tolerance is not None]
    failing = [f for f in deciding if f.verdict == "fail"]
    small = [f for f in deciding if f.verdict == "n too small"]
    if failing:
        names = ", ".join(_within(f.label) for f in failing[:3])
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


def _beside(name: str, yardsticks: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {k: values[name] for k, values in yardsticks.items() if name in values}


def _within(label: str) -> str:
    """A label inside a sentence: `Predicted age` loses its capital, `FA` does not."""
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _left_out(size: int, total: int, start: int) -> Table:
    """Membership of all but one of up to 40 groups of the subjects from `start` on; a row each."""
    count = min(size, _GROUPS)
    rows = np.ones((count, total))
    for k in range(count):
        rows[k, start + k : start + size : count] = 0
    return rows


def _jackknife(left_out: Table) -> Table:
    n = len(left_out)
    out: Table = (n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0)
    return out


def weights(group: Table) -> Table:
    """Membership (rows, subjects) as weights of a mean: each row sums to one."""
    out: Table = group / group.sum(axis=1, keepdims=True)
    return out


def mean_difference(values: Table) -> Statistic:
    """Mean of the first group less that of the second, per column of (subjects, columns)."""

    def statistic(first: Table, second: Table) -> Table:
        difference: Table = (weights(first) - weights(second)) @ values
        return difference

    return statistic
