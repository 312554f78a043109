"""The judge on the demo's real subjects: it finds what is wrong, and nothing where nothing is.

Each takes minutes. Run `make demo` first.
"""

from __future__ import annotations

import pytest

from evaluation import trial
from evaluation.evaluate import REPORTS
from evaluation.finding import QUESTIONS

pytestmark = pytest.mark.acceptance


def test_every_control_fails_what_it_must_and_nothing_else() -> None:
    rows = trial.controls()
    (REPORTS / "controls.md").write_text(trial.table(rows) + "\n")
    assert len(rows) >= 12
    assert {row.name: row.failed for row in rows} == {row.name: row.expected for row in rows}
    assert {q for row in rows for q in row.expected} == set(QUESTIONS)


def test_real_subjects_are_not_accused_and_intervals_hold() -> None:
    found = trial.calibration(splits=50)
    (REPORTS / "calibration.md").write_text(found.table() + "\n")
    assert {q: n for q, n in found.alarms.items() if n > 0.05 * found.splits} == {}
    # 50 splits of 95 % intervals: fewer than 44 hits has a chance of one in fifty each.
    assert {name: share for name, share in found.covered.items() if share < 0.88} == {}
