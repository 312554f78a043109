"""Rate of false alarms of the judge, and coverage of its intervals, from real subjects alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.console import progress
from evaluation import diversity
from evaluation.audit import Auditor
from evaluation.comparison import Float64Array
from evaluation.measured_set import MeasuredSet
from evaluation.measurement_grid import MeasurementGrid
from evaluation.ms_ssim import pair_matrix
from evaluation.results import QUESTIONS, AuditResult, Question

# These findings do not have a confidence interval of a number whose true value is zero: a gain,
# two counts, and limits of agreement.
_WITHOUT_COVERAGE = ("augmentation", "near_duplicates", "blends", "fa_agreement", "md_agreement")


@dataclass(frozen=True, slots=True)
class FalseAlarms:
    """The outcome of audits that compare real with real subjects.

    Parameters
    ----------
    splits : the number of audits.
    n : subjects per set of each split.
    alarms : question -> number of audits in which it failed, which is always a false alarm.
    coverage : finding -> share of its 95 % intervals that contain the true value, zero; for a
        finding of several regions, the mean over them.
    """

    splits: int
    n: int
    alarms: Mapping[Question, int]
    coverage: Mapping[str, float]

    def table(self) -> str:
        """Returns two tables in Markdown: false alarms per question, coverage per finding."""
        lines = [
            f"{self.splits} splits of real subjects, {self.n} per set",
            "",
            "| question | false alarms | of |",
            "|---|---|---|",
            *(f"| {q} | {self.alarms[q]} | {self.splits} |" for q in QUESTIONS),
            "",
            "| finding | 95 % intervals that hold the truth, % |",
            "|---|---|",
            *(f"| {name} | {100 * share:.0f} |" for name, share in self.coverage.items()),
        ]
        return "\n".join(lines)


def count_false_alarms(
    real: MeasuredSet, grid: MeasurementGrid, splits: int, permutations: int, seed: int = 0
) -> FalseAlarms:
    """Splits real subjects at random into training, test and "synthetic" thirds and audits each.

    Parameters
    ----------
    real : at least 12 subjects.
    splits : the number of random splits.
    permutations : their number per comparison.
    """
    n = len(real.measurements) // 3
    rng = np.random.default_rng(seed)
    pairs = pair_matrix(real.fa, grid.maps[0].maximum)
    alarms: dict[Question, int] = dict.fromkeys(QUESTIONS, 0)
    covered: dict[str, list[float]] = defaultdict(list)
    for k in progress(range(splits), splits, "calibrate"):
        order = rng.permutation(len(real.measurements))
        rows = [order[i * n : (i + 1) * n] for i in range(3)]
        audit = _audit_split(real, grid, rows, pairs, permutations, seed=k)
        for question in audit.failed:
            alarms[question] += 1
        for answer in audit.answers:
            for found in answer.findings:
                if not found.low < found.high or found.name in _WITHOUT_COVERAGE:
                    continue
                intervals = found.details.values() or [(found.value, found.low, found.high)]
                share = float(np.mean([low <= found.chance <= high for _, low, high in intervals]))
                covered[found.name].append(share)
    return FalseAlarms(splits, n, alarms, {k: float(np.mean(v)) for k, v in covered.items()})


def _audit_split(
    real: MeasuredSet,
    grid: MeasurementGrid,
    rows: list[NDArray[np.int64]],
    pairs: Float64Array,
    permutations: int,
    seed: int,
) -> AuditResult:
    """Audits one split.

    Parameters
    ----------
    rows : of the training, the test and the "synthetic" subjects.
    pairs : the MS-SSIM of all pairs of `real`, which is not computed anew for each split.
    """
    train, test, made = (real.take(r) for r in rows)
    rows_of = {id(test.measurements): rows[1], id(made.measurements): rows[2]}

    def similarity(first: MeasuredSet, second: MeasuredSet) -> Float64Array:
        groups = [rows_of[id(s.measurements)][: diversity.MAX_FOR_PAIRS] for s in (first, second)]
        chosen = np.concatenate(groups)
        found: Float64Array = pairs[np.ix_(chosen, chosen)]
        return found

    auditor = Auditor(train, test, grid, permutations, seed, similarity=similarity)
    return auditor.audit("real", made)
