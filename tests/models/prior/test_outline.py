"""The outline of sampled brains: smoothing in one piece, and how much of it is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cohort import channels
from cohort.masking import roughness
from models.prior.outline import with_fitted_outline
from models.prior.prior import Prior
from tests.models.bent import bent
from tests.models.fields import flat


def ball(radius: float, side: int = 32) -> NDArray[np.bool_]:
    axis = np.arange(side) - side / 2 + 0.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    inside: NDArray[np.bool_] = x**2 + y**2 + z**2 < radius**2
    return inside


def ragged(mask: NDArray[np.bool_], seed: int = 0) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).normal(scale=0.25, size=mask.shape)
    rough: NDArray[np.bool_] = channels.signed_distance(mask) + noise > 0
    return rough


def test_smoothing_brings_a_ragged_ball_nearer_to_the_ball() -> None:
    rough = ragged(ball(11))
    smooth = channels.smoothed_brain(rough, 1.0)
    assert roughness(rough) > 3 * roughness(smooth)
    assert (smooth ^ ball(11)).sum() < 0.3 * (rough ^ ball(11)).sum()


def test_what_floats_beside_the_brain_goes_with_any_width() -> None:
    mask = ball(9)
    mask[1, 1, 1] = mask[30, 30, 28:31] = True
    np.testing.assert_array_equal(channels.smoothed_brain(mask, 0.0), ball(9))


def test_no_brain_stays_none() -> None:
    assert not channels.smoothed_brain(np.zeros((8, 8, 8), dtype=bool), 1.0).any()


@pytest.mark.parametrize("mask", [ball(8), ball(12)])
def test_roughness_does_not_depend_on_size_by_much(mask: NDArray[np.bool_]) -> None:
    assert roughness(mask) == pytest.approx(roughness(ball(10)), abs=0.05)


def white() -> Prior:
    """A prior of brains that are more ragged than any: each voxel is drawn by itself."""
    prior = bent().prior
    return replace(prior, shape_field=flat(4, prior.mask.shape))


def test_samples_get_outlines_as_smooth_as_the_training_subjects() -> None:
    _, _, _, masks, people = bent()
    prior = white()
    assert prior.outline_sigma == 0

    def error(one: Prior) -> float:
        noise = np.random.default_rng(1).standard_normal((8, *one.shape_field.noise_shape))
        shapes = one.draw_shapes(noise.astype(np.float32), people[:8])
        rough = np.mean([roughness(shape[0] > 0) for shape in shapes])
        return abs(float(rough - np.mean([roughness(mask) for mask in masks])))

    fitted = with_fitted_outline(prior, masks, people)
    assert 0.5 <= fitted.outline_sigma <= 1.5
    assert error(fitted) < 0.5 * error(prior)
    # Only the drawn shapes change.
    assert replace(fitted, outline_sigma=0.0) == prior


def test_brains_that_are_not_rougher_stay_as_they_are() -> None:
    """Those of a prior that draws its mean brain alone, beside subjects that are ragged."""
    prior, _, _, masks, people = bent()
    still = replace(prior, scale=0 * prior.scale)
    rough = np.stack([ragged(mask, seed) for seed, mask in enumerate(masks[:6])])
    assert with_fitted_outline(still, rough, people) is still
