"""Paths against their published schedules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from models.config import PathConfig, PathName
from models.path import Path
from tests.models.paths import PATHS, PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_diffusion_has_the_published_variances(name: PathName) -> None:
    from monai.networks.schedulers import DDPMScheduler

    published = DDPMScheduler(**PUBLISHED[name]).alphas_cumprod.double()
    a, s = Path(PathConfig(path=name))(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(a**2, published, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(s**2, 1 - published, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PATHS)
def test_an_image_turns_into_noise_ever_more(name: PathName) -> None:
    a, s = Path(PathConfig(path=name))(torch.linspace(0, 1, 3001))
    assert (a[0], s[0]) == (1, 0)
    assert a[-1] < 0.012
    assert s[-1] == pytest.approx(1, abs=1e-4)
    assert (a.diff() < 0).all()
    assert (s.diff() >= 0).all()
    if name != "flow":
        torch.testing.assert_close(a**2 + s**2, torch.ones_like(a))


def draws(config: PathConfig) -> torch.Tensor:
    return Path(config).draw(4000, torch.Generator().manual_seed(0))


def test_times_of_the_flow_are_logit_normal() -> None:
    for mean in (0.0, 1.0):
        logit = torch.logit(draws(PathConfig(logit_mean=mean)))
        assert float(logit.mean()) == pytest.approx(mean, abs=0.05)
        assert float(logit.std()) == pytest.approx(1, abs=0.05)


def test_times_of_diffusion_are_uniform() -> None:
    t = draws(PathConfig(path="cosine"))
    levels = torch.linspace(0.1, 0.9, 9)
    torch.testing.assert_close(torch.quantile(t, levels), levels, atol=0.03, rtol=0)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_run_from_noise_to_image(shift: float) -> None:
    grid = Path(PathConfig(shift=shift)).times(10)
    assert grid[0] == 1
    assert grid[-1] == 0
    assert all(a > b for a, b in pairwise(grid))


def test_shift_spends_more_steps_near_noise() -> None:
    assert Path(PathConfig(shift=3.0)).times(10)[5] > Path(PathConfig()).times(10)[5]


def test_zero_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Path(PathConfig()).times(0)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("prediction", ["x", "epsilon", "v"])
def test_the_truth_as_output_gives_the_clean_image(name: PathName, prediction: Any) -> None:
    path = Path(PathConfig(path=name, prediction=prediction))
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 50, dtype=torch.float64, generator=rng)
    a, s = path(torch.linspace(0.01, 0.99, 50, dtype=torch.float64))
    velocity = noise - clean if name == "flow" else a * noise - s * clean
    truth = {"x": clean, "epsilon": noise, "v": velocity}[prediction]
    through, scale = path.scales(a, s)
    torch.testing.assert_close(through * (a * clean + s * noise) + scale * truth, clean)


@pytest.mark.parametrize("name", PATHS)
def test_matched_scales_leave_the_least_variance_to_white_data(name: PathName) -> None:
    """Of data of variance one, c x_t is the best linear estimate and k^2 its error."""
    path = Path(PathConfig(path=name))
    a, s = path(torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64))
    through, scale = path.scales(a, s)

    def error(c: torch.Tensor) -> torch.Tensor:
        return torch.square(1 - c * a) + torch.square(c * s)

    torch.testing.assert_close(error(through), scale**2)
    for other in (0.99 * through, 1.01 * through):
        assert (error(other) > scale**2).all()
