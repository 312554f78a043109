"""The classifier two-sample test against direct computation, and against what cannot be told."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.comparison import Comparison, Measure
from evaluation.two_sample import AUC_RANGE, CHANCE, classifier_auc


def groups(n: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first = (np.arange(n + m) < n).astype(float)[None]
    return first, 1 - first


def test_predictions_are_those_of_classifiers_fitted_without_the_pair() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(30, 4))
    points[:12] += 0.4
    low, middle, high = np.quantile(points, [0.16, 0.5, 0.84], axis=0)
    scaled = (points - middle) / ((high - low) / 2)
    scaled -= scaled.mean(axis=0)
    label = np.where(np.arange(30) < 12, 1.0, -1.0)
    design = np.concatenate([scaled, np.ones((30, 1))], axis=1)
    penalty = np.diag([1.0, 1.0, 1.0, 1.0, 0.0])  # the intercept is not penalised
    right = 0
    for i in range(12):
        for j in range(12, 30):
            others = ~np.isin(np.arange(30), (i, j))
            x = design[others]
            slope = np.linalg.solve(x.T @ x + penalty, x.T @ label[others])
            right += design[i] @ slope > design[j] @ slope
    assert classifier_auc(points)(*groups(12, 18))[0, 0] == pytest.approx(right / (12 * 18))


def test_sets_that_do_not_overlap_are_told_apart() -> None:
    points = np.random.default_rng(1).normal(size=(40, 3))
    points[:20, 1] += 10
    assert classifier_auc(points)(*groups(20, 20))[0, 0] == 1


def test_equal_sets_are_at_chance() -> None:
    found = []
    for seed in range(100):
        points = np.random.default_rng(seed).normal(size=(40, 6))
        found.append(classifier_auc(points)(*groups(20, 20))[0, 0])
    assert np.mean(found) == pytest.approx(0.5, abs=3 * np.std(found) / 10)
    assert np.std(found) < 0.2


def test_a_constant_feature_and_one_odd_volume_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    points = np.concatenate([rng.normal(size=(40, 3)), np.ones((40, 1))], axis=1)
    points[0] = 1e9
    assert 0.2 < classifier_auc(points)(*groups(20, 20))[0, 0] < 0.8


def test_the_finding_shows_the_auc_and_fails_beyond_the_tolerance() -> None:
    points = np.random.default_rng(3).normal(size=(60, 3))
    points[:30, 0] += 3
    measure = Measure(
        "auc", "AUC", "", classifier_auc(points), "above", 0.2, chance=CHANCE, limits=AUC_RANGE
    )
    answer = Comparison(30, 30).answer("fidelity", [measure], {})
    found = answer.finding("auc")
    assert found.value == pytest.approx(0.98, abs=0.04)
    assert found.low < found.value <= found.high <= 1
    assert (found.verdict, found.chance) == ("fail", 0.5)
