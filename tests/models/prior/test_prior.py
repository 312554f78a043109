"""The prior: what is expected of a brain of a given shape, and volumes as residuals from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cohort import channels
from cohort.group_template import AXES, GroupTemplate
from cohort.regression import design
from cohort.template_estimator import FINER
from contracts.condition import Condition
from contracts.maps import FA, MD
from models.prior.covariance import Covariance
from models.prior.prior import CLIP, Prior
from models.prior.stationary import StationaryField
from tests.cohort.tiny import tiny_volumes
from tests.models.bent import bent
from tests.models.fields import white
from tests.models.priors import prior_of
from tests.models.tiny import template_prior

GAIN = np.array([1.1, 0.93, 1], dtype=np.float32)
WHO = [Condition(25, "F"), Condition(70, "M")]


def per_channel(gain: np.ndarray) -> np.ndarray:
    return gain[:, None, None, None]


def interpolated(template: GroupTemplate, displacement: np.ndarray) -> np.ndarray:
    """The template's image at x + u(x), by SciPy."""
    from scipy.ndimage import map_coordinates

    grid = np.stack(np.meshgrid(*map(np.arange, template.mask.shape), indexing="ij"))
    at = FINER * (grid + displacement)
    return np.stack([map_coordinates(c, at, order=1, mode="nearest") for c in template.image])


def a_shape(seed: int = 0) -> np.ndarray:
    """A brain of the bent cohort, displaced by up to a voxel everywhere."""
    rng = np.random.default_rng(seed)
    one = bent()
    u = rng.uniform(-1, 1, (AXES, *one.prior.mask.shape)) * one.prior.mask
    return np.concatenate([one.encoded[seed, -1:], u]).astype(np.float32)


class TestExpected:
    def test_it_is_the_displaced_template_and_the_mean(self) -> None:
        prior = bent().prior
        shapes = np.stack([a_shape(0), a_shape(1)])
        found = prior.expected(shapes, WHO)
        for one, shape, who in zip(found, shapes, WHO, strict=True):
            added = np.tensordot(design([who])[0], prior.coefficients, axes=1)[:2]
            known = interpolated(prior.template, shape[1:])[:2] + added
            np.testing.assert_allclose(one[:2], known, atol=1e-4)
            np.testing.assert_array_equal(one[-1], shape[0])

    def test_it_has_the_shape_of_the_brain(self) -> None:
        prior, encoded, displacements, _, people = bent()
        _, expected = prior.residual_and_expected(encoded[0], displacements[0], people[0])
        np.testing.assert_array_equal(expected[-1], encoded[0, -1])
        inside = prior.mask & (encoded[0, -1] > 0.3)
        own, others = (
            np.square(encoded[0, :2] - v[:2])[:, inside].mean()
            for v in (expected, encoded.mean(axis=0))
        )
        assert own < 0.3 * others

    def test_the_mean_follows_an_effect_of_age_that_is_known(self) -> None:
        """FA and MD rise by 0.001 a year, in the units of the network, and sex does nothing."""
        volumes, masks, people = tiny_volumes(40)
        encoded = channels.encode(volumes, masks, (FA, MD))
        prior = template_prior(encoded, channels.possible_brain(masks), people)
        who = [Condition(30, "F"), Condition(80, "F"), Condition(80, "M")]
        still = np.zeros((3, 1 + AXES, *prior.mask.shape), dtype=np.float32)
        young, old, man = prior.expected(still, who)[:, :2][..., masks[0]].mean(axis=-1)
        np.testing.assert_allclose(old - young, 0.05, atol=0.006)
        np.testing.assert_allclose(man - old, 0, atol=0.006)
        np.testing.assert_allclose(young, 0.43, atol=0.006)

    def test_another_scanner_changes_nothing_of_it(self) -> None:
        prior, shapes = bent().prior, a_shape()[None]
        scaled = prior.with_gain(GAIN).expected(shapes, WHO[:1])
        np.testing.assert_array_equal(scaled, prior.expected(shapes, WHO[:1]))


class TestVolumes:
    def test_subjects_are_put_together_again(self) -> None:
        prior, encoded, displacements, masks, people = bent()
        for i in range(4):
            r, expected = prior.residual_and_expected(encoded[i], displacements[i], people[i])
            again = prior.volumes(r[None], expected[None])[0]
            np.testing.assert_array_equal(channels.brain(again), masks[i])
            kept = prior.mask & (abs(r) < CLIP).all(axis=0)
            assert kept.sum() > 0.99 * prior.mask.sum()
            np.testing.assert_allclose(again[:, kept], encoded[i][:, kept], atol=1e-6)

    @pytest.mark.parametrize("gain", [np.ones(3, dtype=np.float32), GAIN], ids=["base", "other"])
    def test_residuals_come_back(self, gain: np.ndarray) -> None:
        prior = bent().prior.with_gain(gain)
        shape = a_shape()
        rng = np.random.default_rng(1)
        r = rng.uniform(-0.99 * CLIP, 0.99 * CLIP, (2, *prior.mask.shape)) * prior.mask
        expected = prior.expected(shape[None], WHO[:1])
        volume = prior.volumes(r[None].astype(np.float32), expected)[0]
        found, again = prior.residual_and_expected(volume, shape[1:], WHO[0])
        np.testing.assert_allclose(found, r, atol=1e-3)
        np.testing.assert_allclose(again, expected[0], atol=1e-5)

    def test_a_residual_counts_in_units_of_the_scale_inside_the_mask_alone(self) -> None:
        prior = bent().prior
        expected = prior.expected(a_shape()[None], WHO[:1])
        one = np.ones((1, 2, *prior.mask.shape), dtype=np.float32)
        added = prior.volumes(one, expected) - prior.volumes(0 * one, expected)
        np.testing.assert_allclose(added[0, :2], prior.scale[:2] * prior.mask, atol=1e-6)
        assert not added[0, -1].any()

    def test_what_lies_far_off_is_clipped(self) -> None:
        prior, encoded, displacements, _, people = bent()
        volume, at = encoded[0].copy(), tuple(np.argwhere(prior.mask)[200])
        r, expected = prior.residual_and_expected(volume, displacements[0], people[0])
        volume[(0, *at)] += 100 * prior.scale[(0, *at)]
        far, same = prior.residual_and_expected(volume, displacements[0], people[0])
        assert far[(0, *at)] == CLIP
        np.testing.assert_array_equal(same, expected)
        far[(0, *at)] = r[(0, *at)]
        np.testing.assert_array_equal(far, r)

    def test_residuals_of_the_subjects_have_no_mean_and_unit_variance(self) -> None:
        prior, encoded, displacements, _, people = bent()
        subjects = zip(encoded, displacements, people, strict=True)
        r = np.stack([prior.residual_and_expected(*one)[0] for one in subjects])
        assert not r[:, :, ~prior.mask].any()
        inside = r[:, :, prior.mask]
        assert abs(inside.mean(axis=0)).mean() < 0.01
        # The regression takes four of 32 degrees of freedom from its own subjects.
        assert float(inside.var()) * 32 / 28 == pytest.approx(1, abs=0.1)


class TestResidual:
    """Of all channels, for the shift of the mean."""

    def test_that_of_the_maps_is_what_the_network_is_trained_on(self) -> None:
        prior, encoded, displacements, _, people = bent()
        prior = prior.with_gain(GAIN)
        one = encoded[3], displacements[3], people[3]
        np.testing.assert_allclose(
            prior.residual(*one)[:2], prior.residual_and_expected(*one)[0], atol=1e-4
        )

    def test_that_of_a_shape_is_how_far_it_is_from_the_mean_one(self) -> None:
        prior, encoded, displacements, _, people = bent()
        found = prior.residual(encoded[3], displacements[3], people[3])[2:]
        mean = np.tensordot(design(people[3:4])[0], prior.coefficients[:, 2:], axes=1)
        moved = encoded[3, -1:] - interpolated(prior.template, displacements[3])[-1:]
        off = np.concatenate([moved, displacements[3]]) - mean
        known = np.clip(off / prior.scale[2:], -CLIP, CLIP) * prior.mask
        np.testing.assert_allclose(found, known, atol=1e-3)


class TestFit:
    def test_a_subject_at_a_time_gives_what_the_whole_cohort_would(self) -> None:
        from scipy.ndimage import gaussian_filter

        volumes, masks, people = tiny_volumes(24)
        encoded = channels.encode(volumes, masks, (FA, MD))
        mask = channels.possible_brain(masks)
        rng = np.random.default_rng(2)
        u = rng.standard_normal((24, AXES, *mask.shape)).astype(np.float32)
        empty = replace(prior_of(white(2)).template, mask=mask)  # its image is zero everywhere
        fitted = Prior.fit(empty, encoded, u, people)

        x, y = design(people), np.concatenate([encoded, u], axis=1)
        beta, *_ = np.linalg.lstsq(x, y.reshape(24, -1).astype(np.float64), rcond=None)
        beta = beta.reshape(4, *y.shape[1:]) * mask
        np.testing.assert_allclose(fitted.coefficients, beta, rtol=1e-3, atol=1e-5)
        left = (y - np.tensordot(x, beta, axes=1)) * mask
        weight = gaussian_filter(mask.astype(float), 1.0)
        smooth = np.stack([gaussian_filter(v, 1.0) for v in np.square(left).mean(axis=0)])
        spread = np.sqrt(smooth / np.maximum(weight, 1e-6))
        varying = [0, 1, 3, 4, 5]  # all tiny brains have one mask
        found = fitted.scale[varying][:, mask]
        np.testing.assert_allclose(found, spread[varying][:, mask] * np.sqrt(24 / 20), rtol=2e-3)
        known = Covariance.fit((left[:, :2] / spread[:2] * mask).astype("f4"), mask, spread[:2])
        np.testing.assert_allclose(fitted.map_covariance.power, known.power, rtol=0.01, atol=1e-3)
        shapes = StationaryField.fit((left[:, 2:] / spread[2:] * mask).astype("f4"), mask)
        found, power = fitted.shape_field.power[1:], shapes.power[1:]
        np.testing.assert_allclose(found, power, rtol=0.01, atol=1e-3 * power.max())
        assert fitted.map_count == 2

    def test_numbers_are_those_that_files_hold(self) -> None:
        coefficients = bent().prior.coefficients
        np.testing.assert_array_equal(coefficients.astype(np.float16), coefficients)


class TestGain:
    def test_a_factor_is_found(self) -> None:
        prior, encoded, _, _, people = bent()
        for factor in (np.ones(3, dtype=np.float32), GAIN):
            found = prior.with_fitted_gain(encoded[:8] * per_channel(factor), people[:8])
            np.testing.assert_allclose(found.site_gain, factor, atol=0.015)
            assert found.site_gain[-1] == 1

    def test_it_is_taken_away_from_what_is_seen(self) -> None:
        prior, encoded, displacements, _, people = bent()
        scaled = prior.with_gain(GAIN)
        other = encoded[0] * per_channel(GAIN)
        np.testing.assert_allclose(scaled.register(other, people[0]), displacements[0], atol=1e-3)
        for one, known in zip(
            scaled.residual_and_expected(other, displacements[0], people[0]),
            prior.residual_and_expected(encoded[0], displacements[0], people[0]),
            strict=True,
        ):
            np.testing.assert_allclose(one, known, atol=1e-3)

    def test_it_scales_volumes(self) -> None:
        prior = bent().prior
        expected = prior.expected(a_shape()[None], WHO[:1])
        r = np.random.default_rng(1).standard_normal((1, 2, *prior.mask.shape)).astype(np.float32)
        known = prior.volumes(r, expected) * per_channel(GAIN)
        np.testing.assert_allclose(prior.with_gain(GAIN).volumes(r, expected), known, rtol=1e-6)


def test_registering_a_subject_finds_what_the_template_was_made_with() -> None:
    prior, encoded, displacements, _, people = bent()
    found = prior.register(encoded[5], people[5])
    np.testing.assert_array_equal(found, displacements[5])
