"""A shift of the mean: what is taken from the residuals comes back in the volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts.space import Space
from models.generator import Generator
from models.prior.group import with_fitted_shift
from models.prior.mean_shift import fit, on_grid
from models.prior.quantiles import from_scores
from tests.cohort.tiny import people
from tests.models.tiny import tiny_generator


@pytest.fixture(scope="module")
def base() -> Generator:
    return tiny_generator("3d")


@pytest.fixture(scope="module")
def coarse(base: Generator) -> np.ndarray:
    shape = (base.prior.channels, 3, 4, 3)
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


def test_residuals_are_less_the_shift_and_volumes_have_it(
    base: Generator, coarse: np.ndarray
) -> None:
    prior, shifted = base.prior, base.prior.with_mean_shift(coarse)
    full = on_grid(coarse, prior.mask)
    rng = np.random.default_rng(1)
    r = (rng.uniform(-1, 1, (2, *prior.scale.shape)) * prior.mask).astype(np.float32)
    who = people(2)
    np.testing.assert_allclose(shifted.volume(r, who), prior.volume(r + full, who), atol=1e-5)
    relative = prior.mean(who)
    np.testing.assert_allclose(
        shifted.residual_of_relative(relative, who),
        prior.residual_of_relative(relative, who) - full,
        atol=1e-5,
    )


def test_it_is_saved_and_shapes_the_digest(
    base: Generator, coarse: np.ndarray, tmp_path: Path
) -> None:
    shifted = Generator(base.config, base.prior.with_mean_shift(coarse), base.denoiser)
    assert shifted.digest != base.digest
    shifted.save(tmp_path)
    np.testing.assert_array_equal(Generator.load(tmp_path).prior.mean_shift, coarse)


def test_a_group_s_shift_leaves_no_mean_behind(base: Generator) -> None:
    """Residuals of a group are, on average, near zero with its shift, and not without."""
    rng = np.random.default_rng(2)
    prior, who = base.prior, people(8)
    shape = (8, prior.channels, *prior.mask.shape)
    own = (0.3 * rng.standard_normal(shape) * prior.mask).astype(np.float32)
    deviation = from_scores(own + 1.5 * prior.mask, prior.knots) * prior.scale
    relative = (prior.mean(who) + deviation).astype(np.float32)
    fitted = with_fitted_shift(prior, relative, who, base.space)
    before, after = (p.residual_of_relative(relative, who).mean(axis=0) for p in (prior, fitted))
    inside = np.broadcast_to(prior.mask, before.shape)
    assert abs(after[inside].mean()) < 0.1 * abs(before[inside].mean())
