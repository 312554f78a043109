"""A shift of the mean: what is taken from the residuals comes back in the mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.interpolation import displaced
from contracts.space import Space
from models.generator import Generator
from models.prior.group import with_fitted_shift
from models.prior.mean_shift import fit, on_grid
from models.prior.prior import CLIP
from tests.cohort.tiny import BENT_SPACE, people
from tests.models.bent import bent
from tests.models.tiny import tiny_generator


@pytest.fixture(scope="module")
def base() -> Generator:
    return tiny_generator("3d")


@pytest.fixture(scope="module")
def coarse(base: Generator) -> np.ndarray:
    shape = (len(base.prior.scale), 3, 4, 3)
    return 0.3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def shift_of(mean: np.ndarray, mask: np.ndarray, edge: float) -> np.ndarray:
    """The fitted shift, on the grid."""
    space = Space.from_affine("test", mask.shape, np.diag([edge, edge, edge, 1]))
    return on_grid(fit(mean, mask, space), mask)


def a_mask(shape: tuple[int, int, int] = (16, 14, 12)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[2:-3, 3:-2, 2:-2] = True
    return mask


def test_a_shift_that_the_grid_can_hold_is_found() -> None:
    mask = a_mask()
    x, y, z = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in mask.shape], indexing="ij")
    mean = np.stack([0.3 + 0.02 * x, -0.01 * y * z]).astype(np.float32)
    np.testing.assert_allclose(shift_of(mean, mask, 2.0), mean * mask, atol=0.03)


def test_means_of_regions_are_kept() -> None:
    """A region larger than the grid's voxels keeps its mean, but for its edge, noise or not."""
    rng = np.random.default_rng(0)
    mask = a_mask((24, 24, 24))
    mean = 0.25 * rng.standard_normal((1, *mask.shape)).astype(np.float32)
    region = np.zeros(mask.shape, dtype=bool)
    region[8:16, 8:16, 8:16] = True
    mean[0][region] -= 0.8
    found = shift_of(mean, mask, 2.0)
    assert found[0][region].mean() == pytest.approx(mean[0][region].mean(), abs=0.12)
    assert abs(found[0][mask & ~region].mean()) < 0.05


def test_points_that_no_voxel_depends_on_are_zero() -> None:
    mask = a_mask()
    space = Space.from_affine("test", mask.shape, np.diag([2.0, 2.0, 2.0, 1]))
    found = fit(np.ones((2, *mask.shape), dtype=np.float32), mask, space)
    assert (found == 0).any()
    assert found.min() >= -0.05
    assert found.max() <= 1.05


def test_the_mean_has_it_in_units_of_the_scale(base: Generator, coarse: np.ndarray) -> None:
    prior, shifted, who = base.prior, base.prior.with_mean_shift(coarse), people(2)
    full = prior.scale * on_grid(coarse, prior.mask)
    np.testing.assert_allclose(shifted.mean(who), prior.mean(who) + full, atol=1e-6)
    np.testing.assert_array_equal(shifted.with_mean_shift(None).mean(who), prior.mean(who))


def test_volumes_have_it_and_residuals_are_less_it() -> None:
    prior, encoded, displacements, _, who = bent()
    coarse = np.full((len(prior.scale), 2, 2, 2), 0.5, dtype=np.float32)
    shifted, added = prior.with_mean_shift(coarse), 0.5 * prior.scale[:2] * prior.mask
    one = encoded[0], displacements[0], who[0]
    (r, expected), (less, more) = (p.residual_and_expected(*one) for p in (prior, shifted))
    np.testing.assert_allclose(more[:2], expected[:2] + added, atol=1e-6)
    np.testing.assert_array_equal(more[-1], expected[-1])
    inside = prior.mask & (abs(r) < CLIP - 1).all(axis=0)
    np.testing.assert_allclose(less[:, inside], r[:, inside] - 0.5, atol=1e-4)
    every, all_less = (p.residual(*one)[:, inside] for p in (prior, shifted))
    kept = abs(every) < CLIP - 1
    np.testing.assert_allclose(all_less[kept], every[kept] - 0.5, atol=1e-4)
    noise = np.zeros((1, *prior.shape_field.noise_shape), dtype=np.float32)
    u, further = (p.draw_shapes(noise, who[:1])[0, 1:] for p in (prior, shifted))
    np.testing.assert_allclose(further - u, 0.5 * prior.scale[3:] * prior.mask, atol=1e-5)


def test_it_is_saved_and_shapes_the_digest(
    base: Generator, coarse: np.ndarray, tmp_path: Path
) -> None:
    shifted = Generator(base.config, base.prior.with_mean_shift(coarse), base.denoiser)
    assert shifted.digest != base.digest
    shifted.save(tmp_path)
    np.testing.assert_array_equal(Generator.load(tmp_path).prior.mean_shift, coarse)


def test_a_group_s_shift_leaves_no_mean_behind() -> None:
    """A group that lies 1.5 standard deviations off in all channels: its residuals are near zero on
    average with its shift, and not without."""
    prior, *_, who = bent()
    rng, who = np.random.default_rng(2), who[:8]
    own = 0.3 * rng.standard_normal((8, *prior.scale.shape)) + 1.5
    off = (prior.mean(who) + own * prior.scale).astype(np.float32) * prior.mask
    displacements = off[:, 3:]
    still = np.zeros_like(off[:, 2:3])
    # Their maps and distances are those of the displaced template, and what is off.
    shown = prior.expected(np.concatenate([still, displacements], axis=1), who)
    shown[:, :2] -= prior.mean(who)[:, :2]
    image = torch.from_numpy(prior.template.image[-1:])
    shown[:, 2:] = np.stack([displaced(image, torch.from_numpy(u)).numpy() for u in displacements])
    encoded = shown + off[:, :3]
    fitted = with_fitted_shift(prior, encoded, displacements, who, BENT_SPACE)
    before, after = (
        np.mean([p.residual(*one) for one in zip(encoded, displacements, who, strict=True)], axis=0)
        for p in (prior, fitted)
    )
    for channel in range(len(prior.scale)):
        assert before[channel, prior.mask].mean() == pytest.approx(1.5, abs=0.05)
        assert abs(after[channel, prior.mask].mean()) < 0.05
    # Whatever shift a prior had before is replaced, not added to.
    again = with_fitted_shift(fitted, encoded, displacements, who, BENT_SPACE)
    assert fitted.mean_shift is not None
    np.testing.assert_array_equal(again.mean_shift, fitted.mean_shift)
