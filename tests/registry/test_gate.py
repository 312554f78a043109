from __future__ import annotations

import pytest

from registry.gate import Gate


@pytest.mark.parametrize(
    ("base", "adapted", "passed"),
    [(0.5, 0.2, True), (0.2, 0.2, False), (0.2, 0.5, False), (0.2, float("nan"), False)],
)
def test_the_gate_opens_only_to_a_smaller_distance(
    base: float, adapted: float, passed: bool
) -> None:
    gate = Gate(base, adapted)
    assert gate.passed is passed
    assert gate.champion == ("adapted" if passed else "base")
    assert gate.verdict("base") == "passed"
    assert gate.verdict("adapted") == ("passed" if passed else "failed")
