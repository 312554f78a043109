"""Samplers against flows with known solutions and against the published updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import PathName, SamplerName
from models.diffusion.denoiser import Estimate
from models.diffusion.path import ProbabilityPath, sampling_times
from models.diffusion.sampler import Denoise, Draw, Sampler
from models.prior.spectrum import SpectralBasis, posterior_sd
from tests.models.fields import SHAPE, coloured, white

EVERYWHERE = torch.ones(SHAPE)
WHITE, COLOURED = SpectralBasis(white(1)), SpectralBasis(coloured(1, peak=100.0))
FLOW, DDPM = ProbabilityPath("flow"), ProbabilityPath("ddpm")
SAMPLERS: tuple[SamplerName, ...] = ("dpm++", "ancestral")


def noise(n: int = 1) -> Tensor:
    return torch.randn(n, 1, *SHAPE, generator=torch.Generator().manual_seed(0))


def drawing(n: int = 1) -> Draw:
    rng = torch.Generator().manual_seed(0)
    return lambda: torch.randn(n, 1, *SHAPE, generator=rng)


def wiener(basis: SpectralBasis) -> Callable[[Tensor, float, float], Tensor]:
    power = basis.power
    return lambda x, a, s: basis.inverse(basis(x) * (a * power / (a**2 * power + s**2)))


def of_flow(
    basis: SpectralBasis, clean: Callable[[Tensor, float, float], Tensor] | None = None
) -> Denoise:
    """A denoiser on the flow that estimates clean(x, a, s); default: the Gaussian mean."""

    def denoise(x: Tensor, t: float) -> Estimate:
        a, s = 1 - t, t
        mean, sd = wiener(basis)(x, a, s), posterior_sd(basis.power, a, s)
        return Estimate(mean if clean is None else clean(x, a, s), sd, mean, sd)

    return denoise


def of_ddpm(clean: Callable[[Tensor, float, float], Tensor]) -> Denoise:
    """A denoiser of DDPM that estimates clean(x, a, s)."""

    def denoise(x: Tensor, t: float) -> Estimate:
        a, s = (float(part) for part in DDPM(torch.tensor(t, dtype=torch.float64)))
        one = torch.ones(())
        return Estimate(clean(x, a, s), one, torch.zeros_like(x), one)

    return denoise


def curved(x: Tensor, t: float) -> Tensor:
    """Noise as a network may predict it: what no integrator has in closed form."""
    return torch.tanh(x) + 0.3 * t * x.roll(1, dims=-1)


def predicting_noise(limit: float = 1e9) -> Denoise:
    """The denoiser of DDPM whose network is `curved`."""

    def denoise(x: Tensor, t: float) -> Estimate:
        a, s = DDPM(torch.tensor(t))
        one = torch.ones(())
        clean = (x - s * curved(x, t)) / a
        return Estimate(clean, -s / a, torch.zeros_like(x), one).clipped(limit)

    return denoise


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_without_correction_any_number_of_steps_is_exact(steps: int) -> None:
    expected = COLOURED.inverse(COLOURED(noise()) * COLOURED.power.sqrt())
    found = Sampler("dpm++", FLOW, COLOURED, steps)(of_flow(COLOURED), drawing(), EVERYWHERE)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_ancestral_sampling_without_correction_has_the_moments_of_the_gaussian(steps: int) -> None:
    n = 64
    sampler = Sampler("ancestral", FLOW, COLOURED, steps)
    found = sampler(of_flow(COLOURED), drawing(n), EVERYWHERE)
    white_again = COLOURED(found) / COLOURED.power.sqrt()
    count = n * white_again[0].numel()
    assert float(white_again.mean()) == pytest.approx(0, abs=4 / math.sqrt(count))
    strong = COLOURED.power[0] > 10
    for band in (strong, ~strong):
        values = white_again[:, 0, band]
        accuracy = 4 * math.sqrt(2 / values.numel())
        assert float(values.square().mean()) == pytest.approx(1, abs=accuracy)


def test_ancestral_sampling_of_ddpm_comes_to_the_variance_with_the_steps() -> None:
    """The exact denoiser of N(0, 0.6^2): Ho's posterior falls short of the variance of D, less so
    with more steps."""
    sd = 0.6
    denoise = of_ddpm(lambda x, a, s: a * sd**2 / (a**2 * sd**2 + s**2) * x)
    short = []
    for steps in (10, 40, 160):
        found = Sampler("ancestral", DDPM, WHITE, steps)(denoise, drawing(32), EVERYWHERE)
        assert float(found.mean()) == pytest.approx(0, abs=0.02)
        short.append(1 - float(found.var()) / sd**2)
    assert short[0] > short[1] > short[2] > -0.03
    assert short[2] < 0.1


def scale_error(path: ProbabilityPath, steps: int, sd: float) -> float:
    """Relative error of dpm++ where data are N(0, sd^2) and the Gaussian model, if any, believes
    in sd 1; the rest is correction. The true flow multiplies what it starts from by a known
    factor."""

    def truth(x: Tensor, a: float, s: float) -> Tensor:
        return a * sd**2 / (a**2 * sd**2 + s**2) * x

    a, s = (float(part) for part in path(torch.tensor(1.0)))
    begin, denoise = (1.0, of_flow(WHITE, truth)) if path is FLOW else (s, of_ddpm(truth))
    found = Sampler("dpm++", path, WHITE, steps)(denoise, drawing(), EVERYWHERE)
    expected = begin * sd / math.sqrt(a**2 * sd**2 + s**2)
    return float(((found / noise() - expected) / expected).abs().mean())


@pytest.mark.parametrize("sd", [0.5, 0.8, 1.5])
def test_a_correction_turns_one_gaussian_into_another(sd: float) -> None:
    assert scale_error(FLOW, 32, sd) < 0.02


def test_the_error_on_the_flow_is_of_second_order() -> None:
    errors = [scale_error(FLOW, steps, 0.6) for steps in (32, 64)]
    assert math.log2(errors[0] / errors[1]) > 1.6


def test_ddpm_comes_to_the_solution_too() -> None:
    errors = [scale_error(DDPM, steps, 0.6) for steps in (16, 64)]
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.04


def test_ancestral_sampling_of_ddpm_is_the_published_one() -> None:
    """All 1000 steps, the smaller variance, estimates clipped, the same noise."""
    from monai.networks.schedulers import DDPMScheduler

    scheduler = DDPMScheduler(schedule="linear_beta", clip_sample_min=-3.0, clip_sample_max=3.0)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, *SHAPE, generator=rng) * DDPM(torch.tensor(1.0))[1]
    for k in range(999, -1, -1):
        x, _ = scheduler.step(curved(x, (k + 1) / 1000), k, x, generator=rng)
    sampler = Sampler("ancestral", DDPM, WHITE, 1000)
    found = sampler(predicting_noise(3.0), drawing(), EVERYWHERE)
    assert float(x.std()) > 0.1
    torch.testing.assert_close(found, x, atol=2e-3, rtol=2e-3)


def test_for_ddpm_the_integrator_is_algorithm_2_of_lu_et_al() -> None:
    """Down to the last step, which leads to sigma = 0 and is of first order."""
    denoise, times = predicting_noise(), sampling_times(12)
    a, s = DDPM(torch.tensor(times, dtype=torch.float64))
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
    found = Sampler("dpm++", DDPM, WHITE, 12)(denoise, drawing(), EVERYWHERE)
    torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)


def test_on_the_flow_it_is_the_exponential_integrator_in_its_time() -> None:
    """dy/dt = - d F n / (t q), integrated as the formula stands."""
    power, times = COLOURED.power.double(), sampling_times(5)
    denoise = of_flow(COLOURED, lambda x, a, s: 0.7 * wiener(COLOURED)(x, a, s) + 0.1 * x)

    def q(t: float) -> Tensor:
        return ((1 - t) ** 2 * power + t**2).sqrt()

    y, previous = COLOURED(noise()).double(), torch.zeros(1)
    for i, (t, s) in enumerate(pairwise(times)):
        n = denoise(COLOURED.inverse((y * q(t)).float()), t).correction
        slope = n if i == 0 else n + (t - s) / (times[i - 1] - t) / 2 * (n - previous)
        fine = np.linspace(s, t, 2001)
        rate = torch.stack([posterior_sd(power, 1 - u, u) / (max(u, 1e-9) * q(u)) for u in fine])
        y = y + COLOURED(slope) * torch.trapezoid(rate, torch.from_numpy(fine), dim=0)
        previous = n
    found = Sampler("dpm++", FLOW, COLOURED, 5)(denoise, drawing(), EVERYWHERE)
    torch.testing.assert_close(found, COLOURED.inverse((y * q(0)).float()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("path", ["flow", "ddpm"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_outside_the_mask_stays_empty(path: PathName, name: SamplerName) -> None:
    mask = torch.zeros(SHAPE)
    mask[2:6] = 1
    mean = wiener(COLOURED)
    if path == "flow":
        inner = of_flow(COLOURED, lambda x, a, s: mask * mean(x, a, s))
    else:
        inner = of_ddpm(lambda x, a, s: mask * mean(x, a, s))
    seen: list[float] = []

    def watch(x: Tensor, t: float) -> Estimate:
        seen.append(float(x[:, :, mask == 0].std()))
        return inner(x, t)

    found = Sampler(name, ProbabilityPath(path), COLOURED, 4)(watch, drawing(4), mask)
    assert float(found[:, :, mask == 0].abs().max()) < 1e-6
    assert found[:, :, mask > 0].std() > 0.1
    _, s = ProbabilityPath(path)(torch.tensor(sampling_times(4)[:-1]))
    torch.testing.assert_close(torch.tensor(seen), s, atol=0.05, rtol=0)


@pytest.mark.parametrize(("name", "draws"), [("dpm++", 1), ("ancestral", 4)])
def test_steps_are_reported_and_noise_is_drawn_in_order(name: SamplerName, draws: int) -> None:
    told: list[tuple[int, int]] = []
    drawn: list[Tensor] = []
    draw = drawing()

    def count() -> Tensor:
        drawn.append(draw())
        return drawn[-1]

    sampler = Sampler(name, FLOW, WHITE, 3)
    sampler(of_flow(WHITE), count, EVERYWHERE, lambda i, n: told.append((i, n)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(drawn) == draws
