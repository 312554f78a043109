"""The permutation engine: false alarms, intervals, power, and what it says of small samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.comparison import Comparison, Float64Array, Measure, Statistic, mean_difference
from evaluation.results import Answer, AuditResult, Finding


def normal(seed: int, shift: float, n: int = 20, m: int = 25, columns: int = 5) -> Float64Array:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n + m, columns))
    values[:n, 0] += shift
    return values


def spread_gap(values: Float64Array) -> Statistic:
    """A statistic that is biased upwards: it cannot be negative."""

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        return np.abs(mean_difference(values)(first, second))

    return statistic


def judge(
    values: Float64Array, seed: int = 0, n: int = 20, tolerance: float | None = 0.3
) -> Answer:
    measure = Measure("gap", "Gap", "", mean_difference(values), "both", tolerance, columns="abcde")
    comparison = Comparison(n, len(values) - n, 200, seed)
    return comparison.answer("anatomy", [measure], {})


def test_one_population_fails_in_at_most_one_of_twenty() -> None:
    failed = sum(
        judge(normal(seed, 0), seed, tolerance=0.01).verdict == "fail" for seed in range(200)
    )
    assert failed <= 11  # 5 expected; more than 11 has a chance of one in a hundred


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_intervals_cover_the_true_difference(shift: float) -> None:
    hits = []
    for seed in range(150):
        values = normal(seed, shift, columns=1)
        measure = Measure("gap", "Gap", "", mean_difference(values), "both", 0.3)
        found = Comparison(20, 25, 100, seed).answer("anatomy", [measure], {}).findings[0]
        hits.append(found.low <= shift <= found.high)
    assert 0.90 <= np.mean(hits) <= 1


def test_a_biased_statistic_is_zero_on_average_where_nothing_differs() -> None:
    found = []
    for seed in range(150):
        values = normal(seed, 0, columns=1)
        measure = Measure("gap", "Gap", "", spread_gap(values), "above", 0.3)
        found.append(Comparison(20, 25, 100, seed).values([measure])["gap"])
    assert np.mean(found) == pytest.approx(0, abs=3 * np.std(found) / 150**0.5)


def test_a_large_difference_is_found_and_named() -> None:
    answer = judge(normal(0, 2.0))
    found = answer.findings[0]
    assert answer.verdict == "fail"
    assert "most unlike: a" in found.label
    assert (found.p or 1) < 0.01
    assert found.low < 2 < found.high
    assert set(found.details) == set("abcde")


def test_a_difference_within_the_tolerance_does_not_fail() -> None:
    values = normal(1, 0.15, 4000, 4000, 1)
    measure = Measure("gap", "Gap", "", mean_difference(values), "both", 0.3)
    found = Comparison(4000, 4000, 100).answer("anatomy", [measure], {}).findings[0]
    assert (found.p or 1) < 0.025
    assert found.verdict == "pass"


def test_tails_are_told_apart() -> None:
    values = normal(2, -2.0, columns=1)
    for tail, verdict in (("above", "pass"), ("below", "fail")):
        measure = Measure("gap", "Gap", "", mean_difference(values), tail, 0.5)  # type: ignore[arg-type]
        assert Comparison(20, 25, 200).answer("anatomy", [measure], {}).verdict == verdict


def test_small_samples_say_how_many_are_needed() -> None:
    answer = judge(normal(3, 0, 4, 5), n=4, tolerance=0.2)
    assert answer.verdict == "n too small"
    needed = answer.findings[0].needed
    assert needed is not None
    assert 10 < needed < 200
    enough = judge(normal(3, 0, needed * 2, needed * 2), n=needed * 2, tolerance=0.2)
    assert enough.verdict == "pass"


def test_a_measure_that_needs_more_says_so() -> None:
    measure = Measure(
        "gap", "Gap", "", mean_difference(normal(0, 0)), "both", 0.3, min_per_group=30
    )
    found = Comparison(20, 25, 50).answer("anatomy", [measure], {}).findings[0]
    assert math.isnan(found.value)
    assert (found.verdict, found.needed) == ("n too small", 30)


def test_same_input_same_numbers() -> None:
    assert judge(normal(0, 1)) == judge(normal(0, 1))


def test_audit_survives_json() -> None:
    import json

    finding = Finding("a", "A", "mm", 1.0, 0.5, 1.5, 0.1, 0.02, "fail", None, {"real": 0.1},
                      {"left": (1.0, 0.0, 2.0)})  # fmt: skip
    audit = AuditResult(
        "x", {"test": 3}, (Answer("privacy", "fail", "Words.", (finding,)),), {"seed": 1}
    )
    assert AuditResult.from_json(json.loads(json.dumps(audit.to_json()))) == audit
    lost = Finding("b", "B", "", math.nan, math.nan, math.nan, verdict="n too small", needed=9)
    lacking = AuditResult("x", {"test": 3}, (Answer("privacy", "pass", "Words.", (lost,)),))
    again = AuditResult.from_json(json.loads(json.dumps(lacking.to_json(), allow_nan=False)))
    assert math.isnan(again.answers[0].findings[0].value)
    assert again.answers[0].findings[0].needed == 9
    with pytest.raises(ValueError, match="audit again"):
        AuditResult.from_json({**audit.to_json(), "schema": 0})
