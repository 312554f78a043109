"""Volumes relative to the template: brains that differ in shape, taken apart and put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cohort import channels
from cohort.group_template import AXES, GroupTemplate
from cohort.interpolation import LinearInterpolation
from contracts.condition import Condition
from contracts.maps import MAPS
from models.prior.directions import directions
from models.prior.prior import Prior
from models.prior.template_transform import TemplateTransform
from tests.cohort.tiny import bent_brains, people

COUNT = 32
Cohort = tuple[np.ndarray, np.ndarray, list[Condition]]
Fitted = tuple[TemplateTransform, np.ndarray]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    volumes, masks, conditions = bent_brains(COUNT)
    return channels.encode(volumes, masks, MAPS), channels.possible_brain(masks), conditions


@pytest.fixture(scope="module")
def fitted(cohort: Cohort) -> Fitted:
    """The transform, and the displacements of the subjects."""
    template, displacements = GroupTemplate.fit(*cohort)
    found = np.array(displacements)
    return TemplateTransform.fit(template, cohort[0], found, cohort[2]), found


@pytest.fixture(scope="module")
def relative(cohort: Cohort, fitted: Fitted) -> np.ndarray:
    transform, displacements = fitted
    found = [transform.to_relative(v, u) for v, u in zip(cohort[0], displacements, strict=True)]
    return np.stack(found)


@pytest.fixture(scope="module")
def prior(cohort: Cohort, fitted: Fitted, relative: np.ndarray) -> Prior:
    _, reach, known = cohort
    return Prior.fit(relative, reach, known, transform=fitted[0])


def core(transform: TemplateTransform) -> np.ndarray:
    """Voxels well inside of everybody."""
    inside: np.ndarray = transform.template.on_grid()[-1] > 0.5
    return inside


def test_relative_volumes_are_put_together_again(
    cohort: Cohort, fitted: Fitted, relative: np.ndarray
) -> None:
    encoded, reach, _ = cohort
    transform, displacements = fitted
    np.testing.assert_array_equal(relative[:, -AXES:], displacements * reach)
    again = transform.from_relative(relative[:4])
    for one, other, u in zip(encoded, again, displacements, strict=False):
        np.testing.assert_array_equal(channels.brain(one), channels.brain(other))
        at = LinearInterpolation(torch.from_numpy(u))
        scores = transform._scores(one, torch.from_numpy(u), at)
        kept = reach & (np.abs(scores) < 2.999).all(axis=0)
        assert kept.sum() > 0.9 * reach.sum()
        np.testing.assert_allclose(other[:, kept], one[:, kept], atol=1e-3)


def test_registering_finds_the_same(cohort: Cohort, fitted: Fitted, relative: np.ndarray) -> None:
    found = fitted[0].register(cohort[0][:3], cohort[2][:3])
    np.testing.assert_array_equal(found, relative[:3])


def test_channels_are_normal_and_apart_once_conditions_are_known(
    cohort: Cohort, fitted: Fitted, relative: np.ndarray
) -> None:
    transform, displacements = fitted
    inside = core(transform)
    assert float(relative[:, :2][:, :, inside].std()) == pytest.approx(1, abs=0.15)
    alone = np.broadcast_to(np.eye(3).reshape(3, 3, 1, 1, 1), transform.channel_factor.shape)
    unmixed = replace(transform, channel_factor=alone.astype(np.float32))
    raw = np.stack(
        [unmixed.to_relative(v, u) for v, u in zip(cohort[0], displacements, strict=True)]
    )
    coupled, apart = (
        abs(np.corrcoef(a[:, 0][:, inside].ravel(), a[:, 1][:, inside].ravel())[0, 1])
        for a in (raw, relative)
    )
    assert apart < 0.4 * coupled


def test_the_boundary_alone_is_enough_for_a_given_brain(cohort: Cohort, fitted: Fitted) -> None:
    encoded, _, known = cohort
    transform, _ = fitted
    distances = encoded[:2, -1]
    told = transform.relative_of_boundary(distances, known[:2])
    assert not told[:, :2].any()
    assert told[:, 3:].any()
    made = transform.from_relative(told, distances)
    np.testing.assert_array_equal(made[:, -1], distances)


def test_signed_distances_are_those_of_their_brains(prior: Prior) -> None:
    rng = np.random.default_rng(4)
    drawn = rng.standard_normal((3, *prior.scale.shape)).astype(np.float32) * prior.mask
    for one in prior.volume(drawn, people(3)):
        np.testing.assert_array_equal(one[-1], channels.signed_distance(channels.brain(one)))


def test_a_brain_that_is_not_there_has_no_distance(prior: Prior, fitted: Fitted) -> None:
    template = fitted[0].template
    image = np.concatenate([template.image[:-1], 0 * template.image[-1:] - 9])
    nowhere = replace(fitted[0], template=replace(template, image=image))
    made = nowhere.from_relative(np.zeros((1, *prior.scale.shape), dtype=np.float32))
    assert np.isfinite(made).all()
    assert not channels.brain(made).any()


def test_a_gain_is_found_and_taken_away(cohort: Cohort, prior: Prior) -> None:
    encoded, _, known = cohort
    gain = np.array([1.1, 0.93, 1], dtype=np.float32)
    other = encoded * gain[:, None, None, None]
    np.testing.assert_allclose(prior.with_fitted_gain(encoded, known).site_gain, 1, atol=0.01)
    np.testing.assert_allclose(prior.with_fitted_gain(other, known).site_gain, gain, atol=0.015)
    np.testing.assert_allclose(
        prior.with_gain(gain).residual(other[:2], known[:2]),
        prior.residual(encoded[:2], known[:2]),
        atol=0.02,
    )


def test_what_is_expected_of_a_brain_has_its_shape(cohort: Cohort, prior: Prior) -> None:
    encoded, reach, known = cohort
    expected = prior.expected_for_shape(encoded[0], known[0])
    np.testing.assert_array_equal(expected[-1], encoded[0, -1])
    inside = reach & (encoded[0, -1] > 0.3)
    mean = encoded.mean(axis=0)
    own, others = (
        np.square(encoded[0, :2] - v)[:, inside].mean() for v in (expected[:2], mean[:2])
    )
    assert own < 0.4 * others


def test_arrays_of_all_subjects_may_lie_elsewhere(cohort: Cohort, fitted: Fitted) -> None:
    encoded, _, known = cohort
    transform, displacements = fitted
    moved = np.full(encoded.shape, np.nan, dtype=np.float32)
    found = TemplateTransform.fit(transform.template, encoded, displacements, known, moved=moved)
    assert np.isfinite(moved).all()
    for name, expected in transform.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], expected, err_msg=name)


def test_arrays_make_the_same_transform(
    cohort: Cohort, fitted: Fitted, relative: np.ndarray
) -> None:
    transform, displacements = fitted
    again = TemplateTransform.from_arrays(transform.arrays())
    assert again.channels == transform.channels == relative.shape[1]
    np.testing.assert_array_equal(again.to_relative(cohort[0][0], displacements[0]), relative[0])


def test_sensitivity_is_what_a_unit_changes(fitted: Fitted) -> None:
    """A tenth of a voxel along one axis moves the maps by a tenth of the template's slope."""
    transform, _ = fitted
    still = np.zeros((1, transform.channels, *transform.template.mask.shape), dtype=np.float32)
    moved = still.copy()
    moved[:, -3] = 0.1
    change = (transform.from_relative(moved) - transform.from_relative(still))[0, :-1] / 0.1
    told = transform.sensitivity()[-3]
    size = np.sqrt((change**2).sum(axis=0))
    inside = core(transform)
    # The sensitivity is a central difference over two voxels, the step one between half voxels.
    assert np.corrcoef(size[inside], told[inside])[0, 1] > 0.6
    assert 0.7 < size[inside].mean() / told[inside].mean() < 2


def test_directions_are_finite_and_inside_the_mask(fitted: Fitted) -> None:
    transform, _ = fitted
    found = directions(transform)
    assert found.shape[1:] == (transform.channels, *transform.template.mask.shape)
    assert np.isfinite(found).all()
    assert not found[:, :, ~transform.template.mask].any()
    assert (np.abs(found).max(axis=(1, 2, 3, 4)) > 0).all()
