"""The sampler against ODEs with known solutions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from models.sampler import dpm_solver_2m, times


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


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_a_constant_estimate_is_reached_exactly(steps: int) -> None:
    target = torch.tensor([2.0, -1.0])
    found = dpm_solver_2m(lambda x, t: target, torch.randn(2), times(steps))
    torch.testing.assert_close(found, target)


def gaussian_error(steps: int, sd: float) -> float:
    """Relative error of the sample's scale for data N(0, sd^2), whose flow is a scaling by sd."""

    def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
        a = 1 - t
        return a * sd**2 / (a**2 * sd**2 + t**2) * x

    noise = torch.ones(1, dtype=torch.float64)
    return abs(float(dpm_solver_2m(denoise, noise, times(steps))) / sd - 1)


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
def test_gaussian_data_are_solved(sd: float) -> None:
    assert gaussian_error(64, sd) < 2e-3


def test_error_falls_with_the_square_of_the_steps() -> None:
    order = math.log2(gaussian_error(64, 2.0) / gaussian_error(128, 2.0))
    assert order > 1.6


def test_steps_are_reported() -> None:
    seen: list[tuple[int, int]] = []
    dpm_solver_2m(lambda x, t: x, torch.ones(1), times(3), lambda i, n: seen.append((i, n)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
