"""A shift of the mean: what is taken from the residuals comes back in the volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.space import Space
from models.generator import Generator
from models.prior.mean_shift import MeanShift, on_grid
from tests.cohort.tiny import SPACE, people
from tests.models.tiny import tiny_generator


@pytest.fixture(scope="module")
def base() -> Generator:
    return tiny_generator("3d")


@pytest.fixture(scope="module")
def coarse(base: Generator) -> np.ndarray:
    shape = MeanShift(base.prior.channels, SPACE, base.prior.mask).coarse().shape
    return 0.3 * np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_it_is_zero_at_first_and_on_the_grid(base: Generator) -> None:
    made = MeanShift(base.prior.channels, SPACE, base.prior.mask)()
    assert made.shape == (base.prior.channels, *SPACE.shape)
    assert not made.any()


def test_only_points_that_the_brain_depends_on_are_trained() -> None:
    space = Space.from_affine("test", (12, 12, 12), np.diag([2.0, 2, 2, 1]))
    mask = np.zeros(space.shape, dtype=bool)
    mask[:3, 5:8] = True
    module = MeanShift(2, space, mask)
    assert 0 < module.values.numel() < 0.8 * module.coarse().numel()
    with torch.no_grad():
        module.values.fill_(1)
    # Whatever the other points are, the mask sees ones.
    np.testing.assert_allclose(module().detach().numpy()[:, mask], 1, rtol=1e-6)
    module().mul(torch.from_numpy(mask)).sum().backward()
    assert module.values.grad is not None
    assert bool((module.values.grad != 0).all())


def test_training_and_sampling_see_the_same_shift(base: Generator, coarse: np.ndarray) -> None:
    module = MeanShift(base.prior.channels, SPACE, base.prior.mask)
    with torch.no_grad():
        module.values.copy_(torch.from_numpy(coarse)[:, module.nodes])
    expected = module().detach().numpy() * base.prior.mask
    np.testing.assert_array_equal(on_grid(coarse, base.prior.mask), expected)


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
