"""What the stage writes about an audit besides the audit itself."""

from __future__ import annotations

import math

import pytest

from evaluation.evaluate import HEADLINE, flat_scores, headline_metrics
from evaluation.results import Answer, AuditResult, Finding


def result(**values: float) -> AuditResult:
    """An audit whose findings have these values."""
    findings = tuple(
        Finding(k, k, "", v, v - 1, v + 1, verdict="pass", yardsticks={"real": 0.5})
        for k, v in values.items()
    )
    answers = (Answer("fidelity", "pass", "No difference.", findings),)
    return AuditResult("base-3d", {"synthetic": 4, "test": 5}, answers, {"seed": 7})


VALUES = {"kernel_distance": 0.012345678, "copy_share": -2.3456789, "adherence": 1234.5678}


def test_headline_metrics_are_three_numbers_of_five_digits() -> None:
    headline = headline_metrics(result(**VALUES, fa_histogram=1.0))
    assert headline == {
        "kernel_distance": 0.012346,
        "copy_share_percent": -2.3457,
        "requested_age_error_years": 1234.6,
    }


def test_a_headline_metric_of_too_few_volumes_is_none() -> None:
    headline = headline_metrics(result(**VALUES | {"copy_share": math.nan}))
    assert headline["copy_share_percent"] is None
    assert len(headline) == len(HEADLINE) == 3


def test_flat_scores_hold_what_was_computed() -> None:
    scores = flat_scores(result(kernel_distance=0.25, recall=math.nan))
    assert set(scores["metrics"]) == {"kernel_distance"}
    found = scores["metrics"]["kernel_distance"]
    assert (found["low"], found["value"], found["high"]) == pytest.approx((-0.75, 0.25, 1.25))
    assert (found["verdict"], found["real"]) == ("pass", 0.5)
    assert (scores["verdicts"], scores["seed"]) == ({"fidelity": "pass"}, 7)
