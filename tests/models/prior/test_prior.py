"""The prior without a template: fitted a volume at a time, it is that of the whole cohort."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cohort import channels
from cohort.regression import design
from contracts.condition import Condition
from contracts.maps import FA, MD
from models.prior import quantiles
from models.prior.prior import Prior
from models.prior.spectrum import SpectralBasis
from tests.cohort.tiny import tiny_volumes
from tests.models.fields import SHAPE

Cohort = tuple[np.ndarray, np.ndarray, list[Condition]]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    volumes, masks, people = tiny_volumes(24)
    return channels.encode(volumes, masks, (FA, MD)), channels.possible_brain(masks), people


@pytest.mark.parametrize("block", [1, 5000, 2**30])
def test_streams_what_the_whole_would_give(
    cohort: Cohort, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.ndimage import gaussian_filter
    from scipy.special import ndtr

    monkeypatch.setattr(quantiles, "_BLOCK_BYTES", block)
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
    found = np.quantile(left / own, ndtr(np.arange(-2, 2.5, 0.5)), axis=0)
    rises = np.maximum(np.diff(found, axis=0), 0.02)
    steps = np.concatenate([np.zeros_like(rises[:1]), np.cumsum(rises, axis=0)])
    knots = found[4] + steps - steps[4]
    # All tiny brains have one mask: what their signed distance leaves over is rounding.
    np.testing.assert_allclose(fitted.knots[:, :2], knots[:, :2], atol=1e-5)


def test_residual_inverts_volume(cohort: Cohort) -> None:
    encoded, mask, people = cohort
    fitted = Prior.fit(encoded, mask, people)
    r = np.random.default_rng(1).uniform(-2.9, 2.9, encoded.shape).astype(np.float32) * mask
    again = fitted.residual(fitted.volume(r, people), people)
    np.testing.assert_allclose(again[:, :2], r[:, :2], atol=1e-4)


def test_residual_and_volume_are_inverse_and_of_unit_spread() -> None:
    rng = np.random.default_rng(0)
    people = [Condition(float(a), "F" if i % 2 else "M") for i, a in enumerate(range(20, 84, 2))]
    mask = np.zeros((len(people), *SHAPE), dtype=bool)
    mask[:, 1:-1, 2:-2, 1:-1] = True
    age = np.array([p.age for p in people])[:, None, None, None, None] / 100
    clean = (0.3 + age + 0.05 * rng.standard_normal((len(people), 2, *SHAPE))) * mask[:, None]
    volumes = clean.astype(np.float32)
    prior = Prior.fit(volumes, mask[0], people)
    residual = prior.residual(volumes, people)
    assert (abs(residual) <= 3).all()
    cut = abs(residual) >= 2.999
    assert cut.mean() < 0.005
    np.testing.assert_allclose(prior.volume(residual, people)[~cut], volumes[~cut], atol=1e-5)
    assert residual[:, :, prior.mask].std() == pytest.approx(1.0, abs=0.1)
    older = prior.mean([Condition(80, "F")]) - prior.mean([Condition(30, "F")])
    assert older[0, 0][prior.mask].mean() == pytest.approx(0.5, abs=0.05)


def test_scores_come_out_in_the_distribution_of_their_voxel() -> None:
    rng = np.random.default_rng(3)
    people = [Condition(50.0 + i % 3, "F" if i % 2 else "M") for i in range(400)]
    # Fluid in one of four, tissue in the others: nothing like a bell.
    fluid = rng.random((400, 1, *SHAPE)) < 0.25
    volumes = np.where(fluid, 3.0, 0.8) + 0.05 * rng.standard_normal((400, 1, *SHAPE))
    prior = Prior.fit(volumes.astype(np.float32), np.ones(SHAPE, dtype=bool), people)
    draws = rng.standard_normal((400, 1, *SHAPE)).astype(np.float32)
    found = prior.volume(draws, [Condition(51.0, "F")] * 400)
    levels = [0.05, 0.3, 0.6, 0.9]
    np.testing.assert_allclose(np.quantile(found, levels), np.quantile(volumes, levels), atol=0.15)
    between = ((found > 1.3) & (found < 2.5)).mean()
    assert between < 0.15  # a bell of this spread would put 30 % there


def test_drawn_fields_have_about_the_variance_of_the_subjects() -> None:
    """Half of the grid moves as one, which is a mode: variance is spread between modes and the
    rest, and none is lost."""
    rng = np.random.default_rng(4)
    people = [Condition(50.0 + i % 3, "F" if i % 2 else "M") for i in range(300)]
    volumes = rng.standard_normal((300, 1, *SHAPE))
    volumes[:, :, :4] = 0.3 * volumes[:, :, :4] + rng.standard_normal((300, 1, 1, 1, 1))
    volumes /= volumes.std(axis=0)
    prior = Prior.fit(volumes.astype(np.float32), np.ones(SHAPE, dtype=bool), people)
    assert len(prior.covariance.modes) > 0
    basis = SpectralBasis(prior.covariance)
    noise = torch.randn(2000, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    field = basis.inverse(basis.power.sqrt() * noise).numpy()
    assert float(field.var(axis=0).mean()) == pytest.approx(1, abs=0.1)
    # The half that moves as one does so in the draws as well.
    together = field[:, 0, :4].mean(axis=(1, 2, 3)).var()
    expected = volumes[:, 0, :4].mean(axis=(1, 2, 3)).var()
    assert together == pytest.approx(expected, rel=0.25)


def test_gain_finds_a_site_factor() -> None:
    rng = np.random.default_rng(1)
    people = [Condition(float(a), "F") for a in range(20, 60)]
    volumes = (0.4 + 0.02 * rng.standard_normal((len(people), 2, *SHAPE))).astype(np.float32)
    prior = Prior.fit(volumes, np.ones(SHAPE, dtype=bool), people)
    factor = np.array([0.9, 1.1], dtype=np.float32)
    found = prior.with_fitted_gain(volumes * factor[:, None, None, None], people)
    # The signed distance keeps its unit.
    np.testing.assert_allclose(found.site_gain, [factor[0], 1], rtol=1e-3)


def test_given_distances_are_those_of_the_volume(cohort: Cohort) -> None:
    encoded, mask, people = cohort
    prior = Prior.fit(encoded, mask, people)
    told = prior.relative_of_boundary(encoded[:2, -1], people[:2])
    np.testing.assert_array_equal(told, prior.residual(encoded[:2], people[:2])[:, -1:])
    other = encoded[:2, -1] + 1
    made = prior.volume(np.zeros_like(encoded[:2]), people[:2], other)
    np.testing.assert_array_equal(made[:, -1], other)


def test_the_gain_scales_volumes(cohort: Cohort) -> None:
    encoded, mask, people = cohort
    prior = Prior.fit(encoded, mask, people)
    gain = np.array([1.1, 0.9, 1], dtype=np.float32)
    scaled = replace(prior, site_gain=gain)
    r = np.random.default_rng(1).standard_normal(encoded[:2].shape).astype(np.float32)
    expected = prior.volume(r, people[:2]) * gain[:, None, None, None]
    np.testing.assert_allclose(scaled.volume(r, people[:2]), expected, rtol=1e-6)
