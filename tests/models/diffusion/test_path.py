"""Paths against their published schedules."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from models.config import PathName
from models.diffusion.path import ProbabilityPath, sampling_times


def test_ddpm_has_the_published_variances() -> None:
    from monai.networks.schedulers import DDPMScheduler

    published = DDPMScheduler(schedule="linear_beta").alphas_cumprod.double()
    a, s = ProbabilityPath("ddpm")(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(a**2, published, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(s**2, 1 - published, rtol=1e-4, atol=1e-6)


def test_the_flow_is_straight() -> None:
    t = torch.linspace(0, 1, 11)
    a, s = ProbabilityPath("flow")(t)
    torch.testing.assert_close(a, 1 - t)
    torch.testing.assert_close(s, t)


@pytest.mark.parametrize("name", ["flow", "ddpm"])
def test_an_image_turns_into_noise_ever_more(name: PathName) -> None:
    a, s = ProbabilityPath(name)(torch.linspace(0, 1, 3001))
    assert (a[0], s[0]) == (1, 0)
    assert a[-1] < 0.012
    assert s[-1] == pytest.approx(1, abs=1e-4)
    assert (a.diff() < 0).all()
    assert (s.diff() >= 0).all()
    if name == "ddpm":
        torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))


def draws(name: PathName) -> torch.Tensor:
    return ProbabilityPath(name).draw(4000, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["flow", "ddpm"])
def test_training_times_are_uniform(name: PathName) -> None:
    levels = torch.linspace(0.1, 0.9, 9)
    torch.testing.assert_close(torch.quantile(draws(name), levels), levels, atol=0.03, rtol=0)


def test_sampling_times_run_evenly_from_noise_to_image() -> None:
    grid = sampling_times(10)
    assert (grid[0], grid[-1], len(grid)) == (1, 0, 11)
    assert all(a - b == pytest.approx(0.1) for a, b in pairwise(grid))


def test_zero_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sampling_times(0)
