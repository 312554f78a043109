"""Self-test of the judge on the real subjects of the cohort: controls and false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cohort.derivatives import Derivatives
from contracts import paths
from contracts.console import progress
from contracts.errors import UserError
from contracts.maps import MAPS
from evaluation.audit import Auditor
from evaluation.controls import controls
from evaluation.false_alarms import FalseAlarms, count_false_alarms
from evaluation.measured_set import MeasuredSet
from evaluation.measurement_grid import MeasurementGrid
from evaluation.results import QUESTIONS, Question
from evaluation.volume_set import VolumeSet

# Three sets of thirty subjects each; smaller ones fail to show what the controls must show.
_MIN_SUBJECTS = 90


class ControlResult(NamedTuple):
    """The outcome of the audit of one control.

    Parameters
    ----------
    expected : the questions that must fail.
    failed : the questions that did fail.
    too_small : the questions for which there were too few subjects.
    """

    name: str
    expected: tuple[Question, ...]
    failed: tuple[Question, ...]
    too_small: tuple[Question, ...]


def audit_controls(group: str = "base", permutations: int = 300) -> list[ControlResult]:
    """Audits every control.

    The subjects of a group are divided at random into training, test and new subjects, from
    which the controls are made.

    Parameters
    ----------
    group : ``base`` or ``target``, a group of the cohort's participants.

    Raises
    ------
    UserError : if there are no derivatives, or fewer than 90 subjects in the group.
    """
    volume_set, derivatives = _load_real(group)
    n = len(volume_set) // 3
    order = np.random.default_rng(0).permutation(len(volume_set))
    train, test, new = (volume_set.take(order[i * n : (i + 1) * n]) for i in range(3))
    auditor = Auditor.from_volumes(
        train, test, derivatives.space, MAPS, derivatives.atlas(), permutations=permutations
    )
    results = []
    all_controls = controls()
    for control in progress(all_controls, len(all_controls), "controls"):
        made = MeasuredSet.from_volumes(control.make(new, train), auditor.grid)
        audit = auditor.audit(control.name, made)
        too_small = tuple(a.question for a in audit.answers if a.verdict == "n too small")
        results.append(ControlResult(control.name, control.fails, audit.failed, too_small))
    return results


def control_table(results: Sequence[ControlResult]) -> str:
    """Returns a Markdown table with a column per question; unexpected verdicts are bold."""
    lines = [
        "| control | " + " | ".join(QUESTIONS) + " |",
        "|---" * (1 + len(QUESTIONS)) + "|",
    ]
    for result in results:
        cells = []
        for question in QUESTIONS:
            word = "fail" if question in result.failed else "pass"
            if question in result.too_small:
                word = "n too small"
            as_expected = (question in result.failed) == (question in result.expected)
            cells.append(word if as_expected else f"**{word}**")
        lines.append(f"| {result.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def audit_real_splits(
    group: str = "base", splits: int = 50, permutations: int = 300
) -> FalseAlarms:
    """Audits real against real subjects in random splits of a group.

    Raises
    ------
    UserError : if there are no derivatives, or fewer than 90 subjects in the group.
    """
    volume_set, derivatives = _load_real(group)
    grid = MeasurementGrid.from_real(
        derivatives.space, MAPS, volume_set.volumes, derivatives.atlas()
    )
    real = MeasuredSet.from_volumes(volume_set, grid)
    return count_false_alarms(real, grid, splits, permutations)


def _load_real(group: str) -> tuple[VolumeSet, Derivatives]:
    derivatives = Derivatives.open(paths.DERIVATIVES)
    ids = [p.id for p in derivatives.participants if p.group == group]
    if len(ids) < _MIN_SUBJECTS:
        raise UserError(
            f"found {len(ids)} subjects of group {group} in {paths.DERIVATIVES}, expected at "
            f"least {_MIN_SUBJECTS} for three sets: name another group or add subjects"
        )
    return VolumeSet(derivatives.load(ids), derivatives.conditions(ids), ids), derivatives
