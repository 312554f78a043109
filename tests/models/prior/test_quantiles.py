"""The quantile transform: normal scores of any distribution, and back."""

from __future__ import annotations

import numpy as np
import pytest

from models.prior.quantiles import CLIP, SCORES, fit_knots, from_scores, to_scores


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=(n, 3)).astype(np.float32)


def test_values_become_normal_scores() -> None:
    values = skewed(4000)
    scores = to_scores(values, fit_knots(values, np.ones(3, dtype=np.float32)))
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=0.03)
    assert np.abs(scores).max() <= CLIP


def test_values_come_back_up_to_the_clip() -> None:
    values = skewed(400)
    knots = fit_knots(values, np.full(3, 0.5, dtype=np.float32))
    scores = to_scores(2 * values, knots)
    inside = np.abs(scores) < CLIP
    assert inside.mean() > 0.98
    np.testing.assert_allclose(0.5 * from_scores(scores, knots)[inside], values[inside], atol=1e-5)


def test_curves_rise_even_where_nothing_varies() -> None:
    constant = np.full((50, 3), 2.0, dtype=np.float32)
    knots = fit_knots(constant, np.ones(3, dtype=np.float32))
    assert (np.diff(knots, axis=0) > 0).all()
    np.testing.assert_allclose(knots[len(SCORES) // 2], 2)
    np.testing.assert_allclose(to_scores(constant, knots), 0, atol=1e-5)


@pytest.mark.parametrize("block", [1, 2**26])
def test_what_is_explained_is_subtracted_first(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.prior.quantiles._BLOCK_BYTES", block)
    values, rng = skewed(200), np.random.default_rng(1)
    rows, mean = rng.normal(size=(200, 2)), rng.normal(size=(2, 3))
    added = (values + rows @ mean).astype(np.float32)
    one = np.ones(3, dtype=np.float32)
    found = fit_knots(added, one, (rows.astype(np.float32), mean.astype(np.float32)))
    np.testing.assert_allclose(found, fit_knots(values, one), atol=1e-4)
