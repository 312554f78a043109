"""The Gaussian baseline finds the regression and covariance that it was given."""

from __future__ import annotations

import numpy as np

from contracts.condition import Condition
from evaluation.gaussian_baseline import ConditionalGaussian, gaussian_volumes
from tests.evaluation.people import MAPS, people


def test_mean_follows_the_regression_and_draws_its_covariance() -> None:
    rng = np.random.default_rng(5)
    conditions = [Condition(float(a), "F") for a in rng.uniform(20, 80, 200)]
    mixing = 0.1 * rng.normal(size=(3, 6))
    age = np.array([c.age for c in conditions])[:, None]
    values = (0.01 * age + rng.normal(size=(200, 3)) @ mixing).astype(np.float32)
    gaussian = ConditionalGaussian.fit(values, conditions)
    older = gaussian.mean([Condition(70, "F")]) - gaussian.mean([Condition(40, "F")])
    np.testing.assert_allclose(older, np.full((1, 6), 0.3), atol=0.1)
    draws = gaussian.sample([Condition(50, "F")] * 4000, range(4000))
    np.testing.assert_allclose(np.cov(draws.T), mixing.T @ mixing, atol=0.01)


def test_a_draw_of_the_baseline_is_fixed_by_its_seed() -> None:
    train = people(12, 6)
    two = gaussian_volumes(train, train.conditions[:2], [4, 9], MAPS)
    one = gaussian_volumes(train, train.conditions[1:2], [9], MAPS)
    np.testing.assert_allclose(two[1:], one, atol=1e-6)
