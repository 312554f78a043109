"""The frame of a template: brains that differ in shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from contracts.condition import Condition
from contracts.maps import FA, MD
from models import representation
from models.dispersion import dispersed
from models.frame import AXES, Frame
from models.prior import Prior
from models.warp import Places, pull, smooth

SHAPE = (16, 18, 14)
COUNT = 32
Cohort = tuple[np.ndarray, np.ndarray, list[Condition]]


def people(count: int) -> list[Condition]:
    return [Condition(20 + 60 * i / count, "F" if i % 2 else "M") for i in range(count)]


def brains(count: int, seed: int = 0, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """One brain, bent in as many ways: volumes (n, 2, X, Y, Z) and masks."""
    rng = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    radius = grid.pow(2).sum(dim=0).sqrt()
    stripes = torch.sin(9 * grid[0]) * torch.sin(7 * grid[1]) * torch.sin(8 * grid[2])
    shape = torch.stack([0.4 + 0.25 * stripes, 0.9 - 0.3 * stripes, 0.75 - radius])
    volumes, masks = [], []
    for _ in range(count):
        bend = smooth(torch.randn(3, *SHAPE, generator=rng), 2.5)
        one = pull(shape, 0.6 * bend / bend.std())
        one[:2] *= 1 + noise * torch.randn(2, *SHAPE, generator=rng)
        masks.append((one[2] > 0).numpy())
        volumes.append((one[:2] * (one[2] > 0)).numpy() * np.array([1, 1e-3]).reshape(2, 1, 1, 1))
    return np.stack(volumes).astype(np.float32), np.stack(masks)


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    volumes, masks = brains(COUNT)
    encoded = representation.encode(volumes, masks, (FA, MD))
    return encoded, representation.reach(masks), people(COUNT)


@pytest.fixture(scope="module")
def fitted(cohort: Cohort) -> tuple[Frame, np.ndarray]:
    return Frame.fit(*cohort)


@pytest.fixture(scope="module")
def prior(cohort: Cohort, fitted: tuple[Frame, np.ndarray]) -> Prior:
    encoded, reach, known = cohort
    frame, shifts = fitted
    standard = np.stack([frame.displaced(v, s) for v, s in zip(encoded, shifts, strict=True)])
    return Prior.fit(standard, reach, known, frame=frame)


def core(frame: Frame) -> np.ndarray:
    """Voxels well inside of everybody."""
    inside: np.ndarray = frame.coarse()[-1] > 0.5
    return inside


def test_shape_explains_what_bent_brains_differ_in(
    cohort: Cohort, fitted: tuple[Frame, np.ndarray]
) -> None:
    frame, _ = fitted
    volumes, masks = brains(8, seed=5)  # whom the template has not seen
    encoded = representation.encode(volumes, masks, (FA, MD))
    inside = core(frame)
    left = []
    for one, who in zip(encoded, people(8), strict=True):
        shift = torch.from_numpy(frame.shift(one, who))
        left.append(one - pull(torch.from_numpy(frame.image), shift).numpy())
    shapeless = encoded - cohort[0].mean(axis=0)
    for k in (0, 1):
        after, before = (np.square(a[:, k][:, inside]).mean() for a in (np.stack(left), shapeless))
        assert after < 0.3 * before


def test_standard_volumes_are_put_together_again(
    cohort: Cohort, fitted: tuple[Frame, np.ndarray]
) -> None:
    encoded, reach, known = cohort
    frame, shifts = fitted
    standard = frame.standard(encoded[:4], known[:4])
    np.testing.assert_array_equal(standard[:, -AXES:], shifts[:4] * reach)
    for one, again, s in zip(encoded, frame.volumes(standard), shifts, strict=False):
        np.testing.assert_array_equal(representation.brain(one), representation.brain(again))
        kept = reach & (
            np.abs(frame._normal(one, torch.from_numpy(s), Places(torch.from_numpy(s)))) < 2.999
        ).all(axis=0)
        assert kept.sum() > 0.9 * reach.sum()
        np.testing.assert_allclose(again[:, kept], one[:, kept], atol=1e-3)


def test_channels_are_normal_and_apart_once_conditions_are_known(
    cohort: Cohort, fitted: tuple[Frame, np.ndarray]
) -> None:
    encoded, _, _ = cohort
    frame, shifts = fitted
    inside = core(frame)
    standard = np.stack([frame.displaced(v, s) for v, s in zip(encoded, shifts, strict=True)])
    z = standard[:, :2][:, :, inside]
    assert float(z.std()) == pytest.approx(1, abs=0.15)
    unmixed = replace(
        frame,
        mixing=np.broadcast_to(np.eye(3).reshape(3, 3, 1, 1, 1), frame.mixing.shape).astype(
            np.float32
        ),
    )
    raw = np.stack([unmixed.displaced(v, s) for v, s in zip(encoded, shifts, strict=True)])
    coupled, apart = (
        abs(np.corrcoef(a[:, 0][:, inside].ravel(), a[:, 1][:, inside].ravel())[0, 1])
        for a in (raw, standard)
    )
    assert apart < 0.4 * coupled


def test_the_outline_alone_is_enough_for_a_given_brain(
    cohort: Cohort, fitted: tuple[Frame, np.ndarray]
) -> None:
    encoded, _, known = cohort
    frame, _ = fitted
    levels = encoded[:2, -1]
    told = frame.outlined(levels, known[:2])
    assert not told[:, :2].any()
    assert told[:, 3:].any()
    made = frame.volumes(told, levels)
    np.testing.assert_array_equal(made[:, -1], levels)


def test_level_sets_are_those_of_their_brains(prior: Prior) -> None:
    rng = np.random.default_rng(4)
    drawn = rng.standard_normal((3, *prior.scale.shape)).astype(np.float32) * prior.mask
    for one in prior.volume(drawn, people(3)):
        np.testing.assert_array_equal(one[-1], representation.level_set(representation.brain(one)))


def test_a_brain_that_is_not_there_has_no_level_set(prior: Prior) -> None:
    frame = prior.frame
    assert frame is not None
    nowhere = replace(frame, image=np.concatenate([frame.image[:-1], 0 * frame.image[-1:] - 9]))
    made = nowhere.volumes(np.zeros((1, *prior.scale.shape), dtype=np.float32))
    assert np.isfinite(made).all()
    assert not representation.brain(made).any()


def test_a_gain_is_found_and_taken_away(cohort: Cohort, prior: Prior) -> None:
    encoded, _, known = cohort
    gain = np.array([1.1, 0.93, 1], dtype=np.float32)
    other = encoded * gain[:, None, None, None]
    np.testing.assert_allclose(prior.with_gain(encoded, known).gain, 1, atol=0.01)
    np.testing.assert_allclose(prior.with_gain(other, known).gain, gain, atol=0.015)
    np.testing.assert_allclose(
        prior.scaled(gain).residual(other[:2], known[:2]),
        prior.residual(encoded[:2], known[:2]),
        atol=0.02,
    )


@pytest.mark.parametrize("wrong", [0.8, 1.1])
def test_displacements_of_any_scale_are_brought_to_the_same(
    cohort: Cohort, prior: Prior, wrong: float
) -> None:
    encoded, _, known = cohort
    expected = dispersed(prior, encoded, known).scale
    assert (expected[:-AXES] == prior.scale[:-AXES]).all()
    scale = prior.scale.copy()
    scale[-AXES:] *= wrong
    found = dispersed(replace(prior, scale=scale), encoded, known).scale
    inside = prior.mask
    ratio = found[-AXES:, inside] / expected[-AXES:, inside]
    if wrong < 1:
        np.testing.assert_allclose(ratio, 1, atol=0.06)
    else:  # displacements are never made smaller than registration finds them
        assert (ratio <= wrong + 1e-3).all()


def test_stretched_displacements_are_those_that_are_drawn(cohort: Cohort, prior: Prior) -> None:
    encoded, _, known = cohort
    standard = prior.standard(encoded[:3], known[:3])
    found = replace(prior, scale=prior.scale * 1.25, stretch=1.25)
    plain, stretched = (found.normal(standard, known[:3], s) for s in (False, True))
    expected = prior.normal(standard, known[:3])
    np.testing.assert_array_equal(stretched[:, :-AXES], plain[:, :-AXES])
    np.testing.assert_allclose(stretched[:, -AXES:], expected[:, -AXES:], atol=1e-4)


def test_a_prior_without_a_frame_has_no_shapes_to_scale(cohort: Cohort) -> None:
    encoded, reach, known = cohort
    with pytest.raises(ValueError, match="with a frame"):
        dispersed(Prior.fit(encoded, reach, known), encoded, known)


def test_arrays_of_all_subjects_may_lie_on_disk(
    cohort: Cohort, fitted: tuple[Frame, np.ndarray], tmp_path: object
) -> None:
    from pathlib import Path

    encoded, reach, known = cohort
    assert isinstance(tmp_path, Path)
    frame, shifts = Frame.fit(encoded, reach, known, scratch=tmp_path / "fit")
    np.testing.assert_array_equal(shifts, fitted[1])
    np.testing.assert_array_equal(frame.knots, fitted[0].knots)
    assert (tmp_path / "fit" / "shift.npy").exists()
