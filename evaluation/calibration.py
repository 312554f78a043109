"""Does the judge itself tell the truth? Real subjects audited as if they were synthetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.console import progress
from evaluation import diversity
from evaluation.audit import Auditor, Subject
from evaluation.comparison import Table
from evaluation.finding import QUESTIONS, Audit, Question
from evaluation.ms_ssim import pair_matrix
from evaluation.profile import Frame

# Their truth is not zero (a gain, a count), or what they show is no confidence interval (limits of
# agreement).
_OTHERWISE = ("augmentation", "near_duplicates", "blends", "fa_agreement", "md_agreement")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came out of audits of real against real.

    Parameters
    ----------
    splits : how many.
    n : subjects per set of each split.
    alarms : question -> splits in which it failed; all of them are false.
    covered : finding -> share of intervals that hold the truth, which is zero; of several parts,
        their average.
    """

    splits: int
    n: int
    alarms: Mapping[Question, int]
    covered: Mapping[str, float]

    def table(self) -> str:
        """Markdown."""
        lines = [
            f"{self.splits} splits of real subjects, {self.n} per set",
            "",
            "| question | false alarms | of |",
            "|---|---|---|",
            *(f"| {q} | {self.alarms[q]} | {self.splits} |" for q in QUESTIONS),
            "",
            "| finding | 95 % intervals that hold the truth, % |",
            "|---|---|",
            *(f"| {name} | {100 * share:.0f} |" for name, share in self.covered.items()),
        ]
        return "\n".join(lines)


def calibrate(
    real: Subject, frame: Frame, splits: int, shuffles: int, seed: int = 0
) -> Calibration:
    """Split real subjects at random into training, test and "synthetic" thirds, many times."""
    n = len(real.profiles) // 3
    rng = np.random.default_rng(seed)
    pairs = pair_matrix(real.fa, frame.maps[0].maximum)
    alarms: dict[Question, int] = dict.fromkeys(QUESTIONS, 0)
    hits: dict[str, list[float]] = defaultdict(list)
    for k in progress(range(splits), splits, "calibrate"):
        order = rng.permutation(len(real.profiles))
        rows = [order[i * n : (i + 1) * n] for i in range(3)]
        audit = _one(real, frame, rows, pairs, shuffles, seed=k)
        for question in audit.failed:
            alarms[question] += 1
        for answer in audit.answers:
            for found in answer.findings:
                if not found.low < found.high:
                    continue
                if found.name in _OTHERWISE:
                    continue
                parts = found.details.values() or [(found.value, found.low, found.high)]
                hits[found.name].append(float(np.mean([a <= 0 <= b for _, a, b in parts])))
    return Calibration(splits, n, alarms, {k: float(np.mean(v)) for k, v in hits.items()})


def _one(
    real: Subject,
    frame: Frame,
    rows: list[NDArray[np.int64]],
    pairs: Table,
    shuffles: int,
    seed: int,
) -> Audit:
    train, test, made = (real.take(r) for r in rows)
    known = {id(test.profiles): rows[1], id(made.profiles): rows[2]}

    def similarity(first: Subject, second: Subject) -> Table:
        chosen = np.concatenate([known[id(s.profiles)][: diversity.MOST] for s in (first, second)])
        found: Table = pairs[np.ix_(chosen, chosen)]
        return found

    auditor = Auditor(train, test, frame, shuffles, seed, similarity=similarity)
    return auditor.audit("real", made)
