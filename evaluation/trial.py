"""The judge on trial: controls and calibration on the real subjects of the cohort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cohort.derivatives import Derivatives
from contracts.console import progress
from contracts.errors import UserError
from contracts.maps import MAPS
from evaluation import controls as known
from evaluation.audit import Auditor, Subject
from evaluation.calibration import Calibration, calibrate
from evaluation.cohort import Cohort
from evaluation.finding import QUESTIONS, Question
from evaluation.profile import Frame

_DERIVATIVES = Path("data/derivatives")
_FEWEST = 90


class Row(NamedTuple):
    """A control and what the audit said of it."""

    name: str
    expected: tuple[Question, ...]
    failed: tuple[Question, ...]
    small: tuple[Question, ...]


def _real(group: str) -> tuple[Cohort, Derivatives]:
    derivatives = Derivatives.open(_DERIVATIVES)
    ids = [p.id for p in derivatives.participants if p.group == group]
    if len(ids) < _FEWEST:
        raise UserError(
            f"{len(ids)} subjects of group {group}, at least {_FEWEST} are needed for three sets"
        )
    return Cohort(derivatives.load(ids), derivatives.conditions(ids), ids), derivatives


def controls(group: str = "base", shuffles: int = 300) -> list[Row]:
    """Audit every control, made from a third of the group's subjects."""
    cohort, derivatives = _real(group)
    n = len(cohort) // 3
    order = np.random.default_rng(0).permutation(len(cohort))
    train, test, new = (cohort.take(order[i * n : (i + 1) * n]) for i in range(3))
    auditor = Auditor.of(
        train, test, derivatives.space, MAPS, derivatives.atlas(), shuffles=shuffles
    )
    rows = []
    every = known.controls()
    for control in progress(every, len(every), "controls"):
        made = Subject.of(control.make(new, train), auditor.frame)
        audit = auditor.audit(control.name, made)
        small = tuple(a.question for a in audit.answers if a.verdict == "n too small")
        rows.append(Row(control.name, control.fails, audit.failed, small))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Markdown: a column per question; what is not as it must be is in bold."""
    lines = [
        "| control | " + " | ".join(QUESTIONS) + " |",
        "|---" * (1 + len(QUESTIONS)) + "|",
    ]
    for row in rows:
        cells = []
        for question in QUESTIONS:
            word = "fail" if question in row.failed else "pass"
            if question in row.small:
                word = "n too small"
            right = (question in row.failed) == (question in row.expected)
            cells.append(word if right else f"**{word}**")
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration(group: str = "base", splits: int = 50, shuffles: int = 300) -> Calibration:
    """Calibrate on the group's subjects."""
    cohort, derivatives = _real(group)
    frame = Frame.of(derivatives.space, MAPS, cohort.volumes, derivatives.atlas())
    real = Subject.of(cohort, frame)
    return calibrate(real, frame, splits, shuffles)
