"""The outline of sampled brains: smoothing in one piece, and how much of it is chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cohort import channels
from cohort.group_template import GroupTemplate
from cohort.masking import roughness
from contracts.maps import MAPS
from models.prior.outline import with_fitted_outline
from models.prior.prior import Prior
from models.prior.template_transform import TemplateTransform
from tests.cohort.tiny import bent_brains


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


def test_samples_get_outlines_as_smooth_as_the_training_subjects() -> None:
    volumes, masks, conditions = bent_brains(24)
    encoded = channels.encode(volumes, masks, MAPS)
    template, displacements = GroupTemplate.fit(encoded, channels.possible_brain(masks), conditions)
    found = np.array(displacements)
    transform = TemplateTransform.fit(template, encoded, found, conditions)
    relative = np.stack([transform.to_relative(v, u) for v, u in zip(encoded, found, strict=True)])
    prior = Prior.fit(relative, channels.possible_brain(masks), conditions, transform=transform)
    assert transform.outline_sigma == 0

    def error(one: Prior) -> float:
        noise = np.random.default_rng(1).standard_normal((8, *prior.scale.shape)) * prior.mask
        assert one.transform
        made = one.volume(noise.astype(np.float32), conditions[:8])
        rough = np.mean([roughness(brain) for brain in channels.brain(made)])
        return abs(float(rough - np.mean([roughness(mask) for mask in masks])))

    # White noise, whose brains are more ragged than any: all waves have power one.
    power = np.ones_like(prior.covariance.power)
    none = prior.covariance.modes[:0], prior.covariance.variance[:0]
    white = replace(prior, covariance=replace(prior.covariance, power=power, modes=none[0],
                                              variance=none[1]))  # fmt: skip
    fitted = with_fitted_outline(white, masks, conditions)
    assert fitted.transform
    assert 0.5 <= fitted.transform.outline_sigma <= 1.5
    assert error(fitted) < 0.5 * error(white)
    again = TemplateTransform.from_arrays(fitted.transform.arrays())
    assert again.outline_sigma == pytest.approx(fitted.transform.outline_sigma)
