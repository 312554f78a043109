"""Samplers against flows with known solutions and against the published updates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import PathConfig, PathName, SamplerName
from models.denoiser import Estimate
from models.field import Waves, spread
from models.path import Path
from models.sampler import Denoise, Draw, Sampler
from tests.models.fields import SHAPE, coloured, white
from tests.models.paths import PATHS, PUBLISHED

EVERYWHERE = torch.ones(SHAPE)
WHITE, COLOURED = Waves(white(1)), Waves(coloured(1, peak=100.0))
SAMPLERS: tuple[SamplerName, ...] = ("dpm++", "ddim", "ancestral")
DIFFUSION: tuple[PathName, ...] = ("linear", "scaled_linear", "cosine")


def noise(n: int = 1) -> Tensor:
    return torch.randn(n, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


def drawing(n: int = 1, seed: int = 0) -> Draw:
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(n, 1, *SHAPE, generator=rng)


def gaussian(path: Path, waves: Waves, clean: Callable[[Tensor, float, float], Tensor]) -> Denoise:
    """A denoiser with a Gaussian start that estimates clean(x, a, s) in the end."""

    def denoise(x: Tensor, t: float) -> Estimate:
        a, s = (float(part) for part in path(torch.tensor(t, dtype=torch.float64)))
        known = waves.inverse(waves(x) * (a * waves.power / (a**2 * waves.power + s**2)))
        unit = spread(waves.power, a, s)
        return Estimate(clean(x, a, s), unit, known, unit)

    return denoise


def bare(path: Path, network: Callable[[Tensor, float], Tensor], bound: float = 1e9) -> Denoise:
    """A denoiser without a start around a network that predicts what the path says."""

    def denoise(x: Tensor, t: float) -> Estimate:
        through, scale = path.scales(*path(torch.tensor(t)))
        clean = through * x + scale * network(x, t)
        return Estimate(clean, scale, torch.zeros_like(x), torch.ones(())).bounded(bound)

    return denoise


def wiener(waves: Waves) -> Callable[[Tensor, float, float], Tensor]:
    power = waves.power
    return lambda x, a, s: waves.inverse(waves(x) * (a * power / (a**2 * power + s**2)))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("sampler", ["dpm++", "ddim"])
def test_without_correction_any_number_of_steps_is_exact(name: PathName, sampler: Any) -> None:
    path = Path(PathConfig(path=name))
    expected = COLOURED.inverse(COLOURED(noise()) * COLOURED.power.sqrt())
    for steps in (1, 2, 16):
        denoise = gaussian(path, COLOURED, wiener(COLOURED))
        found = Sampler(sampler, path, COLOURED, steps)(denoise, drawing(), EVERYWHERE)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("steps", [1, 2, 16])
def test_ancestral_sampling_without_correction_has_the_moments_of_the_gaussian(
    name: PathName, steps: int
) -> None:
    path, n = Path(PathConfig(path=name)), 64
    denoise = gaussian(path, COLOURED, wiener(COLOURED))
    found = Sampler("ancestral", path, COLOURED, steps)(denoise, drawing(n), EVERYWHERE)
    white_again = COLOURED(found) / COLOURED.power.sqrt()
    count = n * white_again[0].numel()
    assert float(white_again.mean()) == pytest.approx(0, abs=4 / math.sqrt(count))
    strong = COLOURED.power[0] > 10
    for band in (strong, ~strong):
        values = white_again[:, 0, band]
        accuracy = 4 * math.sqrt(2 / values.numel())
        assert float(values.square().mean()) == pytest.approx(1, abs=accuracy)


@pytest.mark.parametrize("name", PATHS)
def test_plain_ancestral_sampling_comes_to_the_variance_with_the_steps(name: PathName) -> None:
    """The exact denoiser of N(0, 0.6^2) without a start: Ho's posterior falls short of the
    variance of D, less so with more steps."""
    path, sd = Path(PathConfig(path=name, start="none", prediction="x")), 0.6

    def network(x: Tensor, t: float) -> Tensor:
        a, s = path(torch.tensor(t))
        gain: Tensor = a * sd**2 / (a**2 * sd**2 + s**2)
        return gain * x

    short = []
    for steps in (10, 40, 160):
        found = Sampler("ancestral", path, WHITE, steps)(
            bare(path, network), drawing(32), EVERYWHERE
        )
        assert float(found.mean()) == pytest.approx(0, abs=0.02)
        short.append(1 - float(found.var()) / sd**2)
    assert short[0] > short[1] > short[2] > -0.03
    assert short[2] < 0.1


def scale_error(path: Path, sampler: SamplerName, steps: int, sd: float) -> float:
    """Relative error where data are N(0, sd^2) and the Gaussian start, if any, believes in sd 1;
    the rest is correction. The true flow multiplies what it starts from by a known factor."""

    def truth(x: Tensor, a: float, s: float) -> Tensor:
        return a * sd**2 / (a**2 * sd**2 + s**2) * x

    a, s = (float(part) for part in path(torch.tensor(1.0)))
    denoise = gaussian(path, WHITE, truth)
    begin = 1.0
    if path.config.start == "none":
        begin = s
        denoise = bare(path, lambda x, t: truth(x, *map(float, path(torch.tensor(t)))))
    found = Sampler(sampler, path, WHITE, steps)(denoise, drawing(), EVERYWHERE)
    expected = begin * sd / math.sqrt(a**2 * sd**2 + s**2)
    return float(((found / noise() - expected) / expected).abs().mean())


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("sd", [0.5, 0.8, 1.5])
def test_a_correction_turns_one_gaussian_into_another(name: PathName, sd: float) -> None:
    assert scale_error(Path(PathConfig(path=name)), "dpm++", 32, sd) < 0.02


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("sampler", "order"), [("dpm++", 1.6), ("ddim", 0.7)])
def test_error_falls_with_the_order_of_the_sampler(
    name: PathName, sampler: Any, order: float
) -> None:
    path = Path(PathConfig(path=name))
    errors = [scale_error(path, sampler, steps, 0.6) for steps in (32, 64)]
    assert math.log2(errors[0] / errors[1]) > order


@pytest.mark.parametrize("name", PATHS)
def test_without_a_start_samplers_come_to_the_solution_too(name: PathName) -> None:
    path = Path(PathConfig(path=name, start="none", prediction="x"))
    for sampler, most in (("dpm++", 0.04), ("ddim", 0.08)):
        errors = [scale_error(path, sampler, steps, 0.6) for steps in (16, 64)]  # type: ignore[arg-type]
        assert errors[1] < errors[0] / 3, sampler
        assert errors[1] < most, sampler


def curved(x: Tensor, t: float) -> Tensor:
    """What no integrator has in closed form."""
    return torch.tanh(x) + 0.3 * t * x.roll(1, dims=-1)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x"])
def test_without_a_start_ddim_is_the_published_one(name: PathName, prediction: Any) -> None:
    from monai.networks.schedulers import DDIMScheduler

    word = {"epsilon": "epsilon", "v": "v_prediction", "x": "sample"}[prediction]
    scheduler = DDIMScheduler(**PUBLISHED[name], clip_sample=False, prediction_type=word)
    scheduler.set_timesteps(4)
    path = Path(PathConfig(path=name, start="none", prediction=prediction))
    x = noise() * path(torch.tensor(1.0))[1]
    for k in (999, 749, 499, 249):
        x, _ = scheduler.step(curved(x, (k + 1) / 1000), k, x)
    found = Sampler("ddim", path, WHITE, 4)(bare(path, curved), drawing(), EVERYWHERE)
    torch.testing.assert_close(found, x, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_without_a_start_ancestral_sampling_is_ddpm(name: PathName, prediction: Any) -> None:
    """All 1000 steps, the smaller variance, estimates cut, the same noise."""
    from monai.networks.schedulers import DDPMScheduler

    word = {"epsilon": "epsilon", "v": "v_prediction"}[prediction]
    scheduler = DDPMScheduler(
        **PUBLISHED[name], prediction_type=word, clip_sample_min=-3.0, clip_sample_max=3.0
    )
    path = Path(PathConfig(path=name, start="none", prediction=prediction))
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, *SHAPE, generator=rng) * path(torch.tensor(1.0))[1]
    for k in range(999, -1, -1):
        x, _ = scheduler.step(curved(x, (k + 1) / 1000), k, x, generator=rng)
    sampler = Sampler("ancestral", path, WHITE, 1000)
    found = sampler(bare(path, curved, bound=3.0), drawing(), EVERYWHERE)
    assert float(x.std()) > 0.1
    torch.testing.assert_close(found, x, atol=2e-3, rtol=2e-3)


def test_without_a_start_dpm_is_algorithm_2_of_lu_et_al() -> None:
    """Down to the last step, which leads to sigma = 0 and is of first order."""
    path = Path(PathConfig(path="linear", start="none", prediction="v"))
    denoise, times = bare(path, curved), path.times(12)
    a, s = path(torch.tensor(times, dtype=torch.float64))
    log = (a / s).log()
    x, clean = noise() * s[0], [torch.empty(0)]
    for i, (t, _) in enumerate(pairwise(times), start=1):
        x = x.float()
        clean.append(denoise(x, t).clean)
        if i == 12:
            x = clean[i]
            break
        h, d = log[i] - log[i - 1], clean[i]
        if i > 1:
            r = (log[i - 1] - log[i - 2]) / h
            d = (1 + 1 / (2 * r)) * clean[i] - 1 / (2 * r) * clean[i - 1]
        x = s[i] / s[i - 1] * x - a[i] * torch.expm1(-h) * d
    found = Sampler("dpm++", path, WHITE, 12)(denoise, drawing(), EVERYWHERE)
    torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)


def test_on_the_flow_the_default_is_the_exponential_integrator_in_its_time() -> None:
    """dy/dt = - spread F n / (t q), integrated as the formula stands."""
    path = Path(PathConfig())
    power, times = COLOURED.power.double(), path.times(5)
    denoise = gaussian(path, COLOURED, lambda x, a, s: 0.7 * wiener(COLOURED)(x, a, s) + 0.1 * x)

    def q(t: float) -> Tensor:
        return ((1 - t) ** 2 * power + t**2).sqrt()

    y, previous = COLOURED(noise()).double(), torch.zeros(1)
    for i, (t, s) in enumerate(pairwise(times)):
        n = denoise(COLOURED.inverse((y * q(t)).float()), t).correction
        slope = n if i == 0 else n + (t - s) / (times[i - 1] - t) / 2 * (n - previous)
        fine = np.linspace(s, t, 2001)
        rate = torch.stack([spread(power, 1 - u, u) / (max(u, 1e-9) * q(u)) for u in fine])
        y = y + COLOURED(slope) * torch.trapezoid(rate, torch.from_numpy(fine), dim=0)
        previous = n
    found = Sampler("dpm++", path, COLOURED, 5)(denoise, drawing(), EVERYWHERE)
    torch.testing.assert_close(found, COLOURED.inverse((y * q(0)).float()), atol=1e-3, rtol=1e-3)


def test_outside_the_mask_stays_empty() -> None:
    mask = torch.zeros(SHAPE)
    mask[2:6] = 1
    for name, sampler in itertools.product(PATHS, SAMPLERS):
        path = Path(PathConfig(path=name))
        denoise = gaussian(path, COLOURED, lambda x, a, s: mask * wiener(COLOURED)(x, a, s))
        seen: list[float] = []

        def watch(
            x: Tensor, t: float, inner: Denoise = denoise, seen: list[float] = seen
        ) -> Estimate:
            seen.append(float(x[:, :, mask == 0].std()))
            return inner(x, t)

        found = Sampler(sampler, path, COLOURED, 4)(watch, drawing(4), mask)
        assert float(found[:, :, mask == 0].abs().max()) < 1e-6
        assert found[:, :, mask > 0].std() > 0.1
        _, s = path(torch.tensor(path.times(4)[:-1]))
        torch.testing.assert_close(torch.tensor(seen), s, atol=0.05, rtol=0)


@pytest.mark.parametrize(("sampler", "draws"), [("dpm++", 1), ("ddim", 1), ("ancestral", 4)])
def test_steps_are_reported_and_noise_is_drawn_in_order(sampler: Any, draws: int) -> None:
    told: list[tuple[int, int]] = []
    drawn: list[Tensor] = []
    draw = drawing()

    def count() -> Tensor:
        drawn.append(draw())
        return drawn[-1]

    path = Path(PathConfig())
    denoise = gaussian(path, WHITE, wiener(WHITE))
    Sampler(sampler, path, WHITE, 3)(denoise, count, EVERYWHERE, lambda i, n: told.append((i, n)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(drawn) == draws
