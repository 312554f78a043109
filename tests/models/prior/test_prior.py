"""The prior, fitted a volume at a time: the numbers of the whole cohort at once."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.maps import FA, MD
from models import curves, representation
from models.gaussian import design
from models.prior import Prior
from tests.models.tiny import tiny_volumes

Cohort = tuple[np.ndarray, np.ndarray, list[Condition]]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    volumes, masks, people = tiny_volumes(24)
    return representation.encode(volumes, masks, (FA, MD)), representation.reach(masks), people


@pytest.mark.parametrize("slab", [1, 5000, 2**30])
def test_streams_what_the_whole_would_give(
    cohort: Cohort, slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.ndimage import gaussian_filter
    from scipy.special import ndtr

    monkeypatch.setattr(curves, "_SLAB_BYTES", slab)
    encoded, mask, people = cohort
    fitted = Prior.fit(encoded, mask, people)

    x = design(people)
    beta, *_ = np.linalg.lstsq(x, encoded.reshape(24, -1).astype(np.float64), rcond=None)
    beta = beta.reshape(4, *encoded.shape[1:]) * mask
    np.testing.assert_allclose(fitted.coefficients, beta, atol=1e-5)
    left = (encoded - np.tensordot(x, beta, axes=1)) * mask
    weight = gaussian_filter(mask.astype(float), 1.0)
    smooth = [gaussian_filter(v * mask, 1.0) for v in (left**2).mean(axis=0)]
    spread = np.sqrt(np.stack(smooth) / np.maximum(weight, 1e-6)) * np.sqrt(24 / 20)
    floor = 0.05 * spread[:, mask].max(axis=1)[:, None, None, None]
    expected = np.where(mask, np.maximum(spread, np.maximum(floor, 1e-6)), fitted.scale)
    np.testing.assert_allclose(fitted.scale[:2], expected[:2], rtol=1e-4)
    # The curves are those of the subjects; the scale is that of new ones.
    own = fitted.scale / np.sqrt(24 / 20)
    quantiles = np.quantile(left / own, ndtr(np.arange(-2, 2.5, 0.5)), axis=0)
    rises = np.maximum(np.diff(quantiles, axis=0), 0.02)
    steps = np.concatenate([np.zeros_like(rises[:1]), np.cumsum(rises, axis=0)])
    knots = quantiles[4] + steps - steps[4]
    # All tiny brains have one outline: what its level set leaves over is rounding.
    np.testing.assert_allclose(fitted.knots[:, :2], knots[:, :2], atol=1e-5)


def test_residual_inverts_volume(cohort: Cohort) -> None:
    encoded, mask, people = cohort
    fitted = Prior.fit(encoded, mask, people)
    r = np.random.default_rng(1).uniform(-2.9, 2.9, encoded.shape).astype(np.float32) * mask
    again = fitted.residual(fitted.volume(r, people), people)
    np.testing.assert_allclose(again[:, :2], r[:, :2], atol=1e-4)
