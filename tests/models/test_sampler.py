"""The sampler against flows with known solutions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from models.field import Waves
from models.sampler import GaussianFlow, spread, times
from tests.models.fields import SHAPE, coloured, white

EVERYWHERE = torch.ones(SHAPE)
WHITE, COLOURED = Waves(white(1)), Waves(coloured(1, peak=100.0))


def noise(n: int = 1) -> torch.Tensor:
    return torch.randn(n, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


def nothing(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.zeros_like(x)


def test_times_run_from_noise_to_image() -> None:
    for shift in (1.0, 3.0):
        grid = times(10, shift)
        assert grid[0] == 1
        assert grid[-1] == 0
        assert all(a > b for a, b in pairwise(grid))


def test_shift_spends_more_steps_near_noise() -> None:
    assert times(10, 3.0)[5] > times(10)[5]


def test_zero_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        times(0)


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_without_correction_any_number_of_steps_is_exact(steps: int) -> None:
    x = noise()
    found = GaussianFlow(COLOURED, times(steps))(nothing, x, EVERYWHERE)
    expected = COLOURED.inverse(COLOURED(x) * COLOURED.power.sqrt())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def scale_error(steps: int, sd: float) -> float:
    """Relative error where data are N(0, sd^2), the Gaussian part believes in sd 1, and the
    correction is what is missing. The true flow multiplies noise by sd."""

    def correct(x: torch.Tensor, t: float) -> torch.Tensor:
        a = 1 - t
        true = a * sd**2 / (a**2 * sd**2 + t**2)
        believed = a / (a**2 + t**2)
        return (true - believed) / spread(WHITE.power, torch.tensor([t])) * x

    found = GaussianFlow(WHITE, times(steps))(correct, noise(), EVERYWHERE)
    return float(((found / noise() - sd) / sd).abs().mean())


@pytest.mark.parametrize("sd", [0.5, 0.8, 1.5])
def test_a_correction_turns_one_gaussian_into_another(sd: float) -> None:
    assert scale_error(32, sd) < 0.01


def test_error_falls_with_the_square_of_the_steps() -> None:
    assert math.log2(scale_error(16, 0.6) / scale_error(32, 0.6)) > 1.6


def test_outside_the_mask_stays_empty() -> None:
    mask = torch.zeros(SHAPE)
    mask[2:6] = 1
    found = GaussianFlow(COLOURED, times(4))(nothing, noise(), mask)
    assert not found[:, :, mask == 0].any()
    assert found[:, :, mask > 0].std() > 0.1


def test_steps_are_reported() -> None:
    seen: list[tuple[int, int]] = []
    GaussianFlow(WHITE, times(3))(nothing, noise(), EVERYWHERE, lambda i, n: seen.append((i, n)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
