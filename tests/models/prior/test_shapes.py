"""Shapes of brains: drawn ones, and those of given masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cohort import channels
from cohort.group_template import AXES
from contracts.condition import Condition
from models.prior.prior import Prior
from tests.models.bent import bent
from tests.models.fields import flat

WHO = [Condition(25, "F"), Condition(70, "M"), Condition(50, "F")]


def noise(n: int = 3, seed: int = 0) -> np.ndarray:
    shape = (n, *bent().prior.shape_field.noise_shape)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def on_grid(white: np.ndarray) -> np.ndarray:
    """What of white noise is the field, where its power is flat."""
    x, y, z = bent().prior.mask.shape
    return white[..., :x, :y, :z]


def ragged() -> Prior:
    """The prior of the bent brains with shapes that are white noise: full of specks."""
    prior = bent().prior
    return replace(prior, shape_field=flat(1 + AXES, prior.mask.shape))


def pieces(brain: np.ndarray) -> int:
    from scipy.ndimage import label

    return int(label(brain)[1])


@pytest.mark.parametrize("sigma", [0.0, 0.8])
def test_a_drawn_brain_is_in_one_piece_and_has_its_signed_distance(sigma: float) -> None:
    prior = replace(ragged(), outline_sigma=sigma)
    before, after = prior.unsmoothed_shapes(noise(), WHO), prior.draw_shapes(noise(), WHO)
    assert all(pieces(shape[0] > 0) > 1 for shape in before)
    for shape in after:
        brain = shape[0] > 0
        assert pieces(brain) == 1
        np.testing.assert_array_equal(shape[0], channels.signed_distance(brain))
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])


def test_without_smoothing_the_brain_is_the_largest_piece() -> None:
    prior = ragged()
    before, after = (
        shapes[:, 0] > 0
        for shapes in (prior.unsmoothed_shapes(noise(), WHO), prior.draw_shapes(noise(), WHO))
    )
    assert (before | ~after).all()
    assert after.sum() > 0.9 * before.sum()


def test_a_displacement_is_its_mean_and_noise_of_the_scale_of_the_subjects() -> None:
    """With noise of its own at each voxel, which is then the residual itself."""
    prior = ragged()
    known = (prior.mean(WHO)[:, 3:] + on_grid(noise())[:, 1:] * prior.scale[3:]) * prior.mask
    np.testing.assert_allclose(prior.unsmoothed_shapes(noise(), WHO)[:, 1:], known, atol=1e-4)


def test_a_distance_is_that_of_the_displaced_template_its_mean_and_noise() -> None:
    """All are displaced by a voxel along the first axis, and a tenth is added to the distance."""
    prior = ragged()
    everywhere = replace(prior.template, mask=np.ones_like(prior.mask))
    coefficients, scale = np.zeros_like(prior.coefficients), np.zeros_like(prior.scale)
    coefficients[0, 2], coefficients[0, 3], scale[2] = 0.1, 1, 0.5
    prior = replace(prior, template=everywhere, coefficients=coefficients, scale=scale)
    found = prior.unsmoothed_shapes(noise(), WHO)
    known = prior.template.on_grid()[-1][1:] + 0.1 + 0.5 * on_grid(noise())[:, 0, :-1]
    np.testing.assert_allclose(found[:, 0, :-1], known, atol=1e-4)
    np.testing.assert_array_equal(
        found[:, 1:], np.broadcast_to(coefficients[0, 3:], found[:, 1:].shape)
    )


def test_drawn_brains_are_as_large_as_those_of_the_subjects() -> None:
    prior, _, _, masks, people = bent()
    drawn = prior.draw_shapes(noise(len(people)), people)[:, 0] > 0
    volume, known = (one.sum(axis=(1, 2, 3)).mean() for one in (drawn, masks))
    assert volume == pytest.approx(known, rel=0.03)
    assert not (drawn & ~prior.mask).any()


def test_drawn_shapes_vary_as_those_of_the_subjects() -> None:
    """Compared with subjects that the regression was fitted to, which takes 4 of 32 degrees of
    freedom from them."""
    prior, encoded, displacements, _, people = bent()
    drawn = prior.unsmoothed_shapes(noise(64), people * 2)
    off = ((drawn - prior.mean(people * 2)[:, 2:]) / prior.scale[2:])[:, 1:, prior.mask]
    own = np.stack([prior.residual(*s) for s in zip(encoded, displacements, people, strict=True)])
    known = own[:, 3:, prior.mask].var(axis=(0, 2)) * 32 / 28
    np.testing.assert_allclose(off.var(axis=(0, 2)), known, rtol=0.15)


def test_nothing_is_displaced_where_no_brain_may_be() -> None:
    prior = bent().prior
    assert not prior.draw_shapes(noise(), WHO)[:, 1:, ~prior.mask].any()


def test_a_shape_depends_on_its_own_noise_and_condition_alone() -> None:
    prior = bent().prior
    together = prior.draw_shapes(noise(), WHO)
    turned = prior.draw_shapes(noise()[::-1].copy(), WHO[::-1])
    np.testing.assert_array_equal(turned[::-1], together)
    for i, who in enumerate(WHO):
        alone = prior.draw_shapes(noise()[i : i + 1], [who])
        np.testing.assert_array_equal(alone[0], together[i])
    other = prior.draw_shapes(noise(seed=1), WHO)
    assert all((abs(a - b) > 0.1).any() for a, b in zip(other, together, strict=True))


def test_a_brain_that_is_not_there_has_no_distance() -> None:
    prior = bent().prior
    image = prior.template.image.copy()
    image[-1] = -9
    nowhere = replace(prior, template=replace(prior.template, image=image))
    made = nowhere.draw_shapes(np.zeros_like(noise()), WHO)
    assert np.isfinite(made).all()
    assert not (made[:, 0] > 0).any()


def test_given_masks_are_the_brains_of_their_shapes() -> None:
    prior, encoded, _, masks, people = bent()
    shapes = prior.shapes_of_masks(masks[:4], people[:4])
    np.testing.assert_array_equal(shapes[:, 0] > 0, masks[:4])
    np.testing.assert_array_equal(shapes[:, 0], encoded[:4, -1])
    assert not shapes[:, 1:, ~prior.mask].any()
    expected = prior.expected(shapes, people[:4])
    np.testing.assert_array_equal(channels.brain(expected), masks[:4])


def test_the_boundary_tells_much_of_the_displacement() -> None:
    prior, _, displacements, masks, people = bent()
    shapes = prior.shapes_of_masks(masks[:4], people[:4])
    for shape, u in zip(shapes, displacements, strict=False):
        told, found = shape[1:][:, prior.mask], u[:, prior.mask]
        assert np.corrcoef(told.ravel(), found.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_brain_that_lies_a_voxel_further_is_displaced_by_a_voxel(axis: int) -> None:
    """What lies at x is found at x - 1 of the template, whose own brain stays where it is."""
    prior = bent().prior
    still = prior.template.on_grid()[-1] > 0
    moved = np.roll(still, 1, axis=axis)
    two = prior.shapes_of_masks(np.stack([still, moved]), [WHO[0], WHO[0]])[:, 1:]
    inside = still & moved
    change = (two[1] - two[0])[:, inside].mean(axis=1)
    known = np.zeros(3)
    known[axis] = -1
    np.testing.assert_allclose(change, known, atol=0.25)
