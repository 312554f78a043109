"""The closed-form part of the denoiser, against what is known of Gaussians."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from contracts.condition import Condition
from models.config import NetworkConfig, PathConfig, PathName
from models.denoiser import Denoiser
from models.field import Covariance, Waves
from models.prior import Prior
from tests.models.fields import SHAPE, coloured, stationary, white
from tests.models.paths import PATHS
from tests.models.priors import denoiser_of, prior_of, randomised

ZOOMS = (20.0, 12.0, 20.0)
TIMES = torch.tensor([0.1, 0.5, 0.9])


def inputs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(n, 2), torch.zeros(n, 2, *SHAPE)


@pytest.mark.parametrize("name", PATHS)
def test_white_residual_gives_the_scalar_wiener_filter(name: PathName) -> None:
    denoiser = denoiser_of("3d", white(2), PathConfig(path=name))
    noisy = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    estimate = denoiser(noisy, TIMES, *inputs(3))
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(TIMES))
    total = a**2 + s**2
    torch.testing.assert_close(estimate.clean, a / total * noisy, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(estimate.scale, s / total.sqrt(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PATHS)
def test_untrained_denoiser_has_the_score_of_the_gaussian(name: PathName) -> None:
    """(a D - x) / s^2 is the gradient of log N(x; 0, a^2 C + s^2), C built voxel by voxel."""
    small = (4, 4, 4)
    rng = np.random.default_rng(0)
    waves = Waves(stationary(rng.uniform(0.2, 6, (1, *small)).astype(np.float32)))
    basis = waves.inverse(torch.eye(64).view(64, 1, *small)).view(64, 64).double()
    covariance = basis.T @ torch.diag(waves.power.double().flatten()) @ basis
    prior = Prior(
        coefficients=np.zeros((4, 1, *small), dtype=np.float32),
        mask=np.ones(small, dtype=bool),
        scale=np.ones((1, *small), dtype=np.float32),
        knots=np.zeros((9, 1, *small), dtype=np.float32),
        covariance=stationary(waves.power.numpy()),
        sd=np.ones((1, *small), dtype=np.float32),
        gain=np.ones(1, dtype=np.float32),
        centre=np.array([1, 0, 0, 0], dtype=np.float32),
    )
    network = NetworkConfig(channels=(16,), attention=False)
    denoiser = Denoiser("3d", prior, network, PathConfig(path=name))
    x = torch.randn(3, 1, *small, generator=torch.Generator().manual_seed(1))
    still = torch.zeros_like(x)
    clean = denoiser(x, TIMES, torch.zeros(3, 2), still).clean.detach().double().flatten(1)
    for i, (a, s) in enumerate(zip(*denoiser.path(TIMES.double()), strict=True)):
        total = a**2 * covariance + s**2 * torch.eye(64)
        score = -torch.linalg.solve(total, x[i].double().flatten())
        found = (a * clean[i] - x[i].double().flatten()) / s**2
        torch.testing.assert_close(found, score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize("name", PATHS)
def test_untrained_denoiser_is_the_gaussian_model_whatever_it_predicts(
    name: PathName, dim: Any
) -> None:
    noisy = torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    for prediction, t in itertools.product(("matched", "x", "epsilon", "v"), (0.4, 1.0)):
        config = PathConfig(path=name, prediction=prediction)  # type: ignore[arg-type]
        denoiser, time = denoiser_of(dim, coloured(2), config), torch.tensor([t])
        estimate = denoiser(noisy, time, *inputs(1)).bounded(3.0)
        expected = denoiser.wiener(noisy, *(p.view(-1, 1, 1, 1, 1) for p in denoiser.path(time)))
        assert not estimate.correction.any()
        torch.testing.assert_close(estimate.clean, expected, atol=0, rtol=0)


def test_the_gaussian_estimate_is_not_rounded_with_the_network() -> None:
    denoiser = denoiser_of("3d", coloured(2))
    noisy = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    exact = denoiser(noisy, TIMES, *inputs(3))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = denoiser(noisy, TIMES, *inputs(3))
    torch.testing.assert_close(rounded.known, exact.known, atol=1e-6, rtol=1e-6)


def test_bounded_estimates_stay_in_range_or_with_what_is_known() -> None:
    config = PathConfig(path="linear", prediction="epsilon")
    denoiser = randomised(denoiser_of("3d", coloured(2), config))
    noisy = 9 * torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    estimate = denoiser(noisy, torch.tensor([0.97]), *inputs(1))
    bounded = estimate.bounded(3.0)
    limit = estimate.known.abs().clamp(min=3.0)
    assert (estimate.clean.abs() > limit).any()
    assert (bounded.clean.abs() <= limit).all()
    inside = estimate.clean.abs() < 3
    assert torch.equal(bounded.clean[inside], estimate.clean[inside])


def test_a_network_without_a_start_sees_the_noisy_image_alone() -> None:
    """Nothing of the covariance reaches the estimate."""
    config = PathConfig(path="cosine", prediction="epsilon", start="none")
    noisy = torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    found = []
    for covariance in (white(2), coloured(2)):
        torch.manual_seed(0)
        denoiser = randomised(denoiser_of("3d", covariance, config))
        found.append(denoiser(noisy, torch.tensor([0.5]), *inputs(1)).clean)
    assert torch.equal(*found)


def trained(dim: str, covariance: Covariance | None = None) -> Denoiser:
    torch.manual_seed(0)
    return randomised(denoiser_of(dim, covariance or coloured(2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("plane", "order"), [("coronal", (0, 2, 1)), ("sagittal", (2, 0, 1))])
def test_planes_differ_by_a_permutation_of_axes(plane: Any, order: tuple[int, int, int]) -> None:
    """A network for another plane, on volumes turned so that its slices are the axial ones."""
    axes = [0, 1, *(2 + k for k in order)]
    covariance = coloured(2)
    turned = stationary(covariance.power.transpose([0, *(1 + k for k in order)]))
    base = trained("2d", covariance)
    prior = prior_of(turned)
    for name in ("coefficients", "mask", "scale", "knots"):
        array = getattr(prior, name)
        lead = list(range(array.ndim - 3))
        new = array.transpose([*lead, *(len(lead) + k for k in order)])
        object.__setattr__(prior, name, np.ascontiguousarray(new))
    network = NetworkConfig(channels=(16, 16), attention=False, plane=plane)
    other = Denoiser("2d", prior, network, PathConfig())
    other.network.load_state_dict(base.network.state_dict())
    rng = torch.Generator().manual_seed(6)
    noisy, mean = (torch.randn(2, 2, *SHAPE, generator=rng) for _ in range(2))
    t, condition = torch.tensor([0.3, 0.7]), torch.randn(2, 2, generator=rng)
    for slices in (None, torch.tensor([[0, 5, 3], [7, 2, 2]])):
        expected = base(noisy, t, condition, mean, slices)
        found = other(noisy.permute(axes), t, condition, mean.permute(axes), slices)
        for part in ("clean", "known", "correction"):
            torch.testing.assert_close(
                getattr(found, part),
                getattr(expected, part).permute(axes),
                atol=1e-4,
                rtol=1e-4,
            )


def test_slices_agree_with_the_whole_volume() -> None:
    denoiser = trained("2d")
    noisy = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(4))
    t, (condition, mean) = torch.tensor([0.3, 0.7]), inputs(2)
    whole = denoiser(noisy, t, condition, mean)
    chosen = torch.tensor([[0, 5], [7, 2]])
    some = denoiser(noisy, t, condition, mean, chosen)
    for b in range(2):
        torch.testing.assert_close(
            some.clean[b], whole.clean[b][..., chosen[b]], atol=1e-5, rtol=1e-4
        )


def test_2d_network_sees_only_neighbouring_slices_beyond_the_gaussian_part() -> None:
    denoiser = trained("2d", white(2))
    noisy = torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(5))
    other = noisy.clone()
    other[..., 6] += 1
    t, (condition, mean) = torch.tensor([0.5]), inputs(1)
    change = (
        (denoiser(other, t, condition, mean).clean - denoiser(noisy, t, condition, mean).clean)
        .abs()
        .amax(dim=(0, 1, 2, 3))
    )
    assert (change[5:] > 1e-3).all()
    assert (change[:5] < 1e-4).all()


def test_prior_residual_and_volume_are_inverse_and_of_unit_spread() -> None:
    rng = np.random.default_rng(0)
    people = [Condition(float(a), "F" if i % 2 else "M") for i, a in enumerate(range(20, 84, 2))]
    mask = np.zeros((len(people), *SHAPE), dtype=bool)
    mask[:, 1:-1, 2:-2, 1:-1] = True
    age = np.array([p.age for p in people])[:, None, None, None, None] / 100
    clean = (0.3 + age + 0.05 * rng.standard_normal((len(people), 2, *SHAPE))) * mask[:, None]
    volumes = clean.astype(np.float32)
    prior = Prior.fit(volumes, mask[0], people)
    residual = prior.residual(volumes, people)
    assert (abs(residual) <= 3 * prior.sd).all()
    cut = abs(residual) >= 2.999 * prior.sd
    assert cut.mean() < 0.005
    np.testing.assert_allclose(prior.volume(residual, people)[~cut], volumes[~cut], atol=1e-5)
    assert residual[:, :, prior.mask].std() == pytest.approx(1.0, abs=0.1)
    older = prior.mean([Condition(80, "F")]) - prior.mean([Condition(30, "F")])
    assert older[0, 0][prior.mask].mean() == pytest.approx(0.5, abs=0.05)


def test_normal_values_come_out_in_the_distribution_of_their_voxel() -> None:
    rng = np.random.default_rng(3)
    people = [Condition(50.0 + i % 3, "F" if i % 2 else "M") for i in range(400)]
    # Fluid in one of four, tissue in the others: nothing like a bell.
    fluid = rng.random((400, 1, *SHAPE)) < 0.25
    volumes = np.where(fluid, 3.0, 0.8) + 0.05 * rng.standard_normal((400, 1, *SHAPE))
    prior = Prior.fit(volumes.astype(np.float32), np.ones(SHAPE, dtype=bool), people)
    draws = rng.standard_normal((400, 1, *SHAPE)).astype(np.float32)
    found = prior.volume(draws, [Condition(51.0, "F")] * 400)
    levels = [0.05, 0.3, 0.6, 0.9]
    np.testing.assert_allclose(np.quantile(found, levels), np.quantile(volumes, levels), atol=0.15)
    between = ((found > 1.3) & (found < 2.5)).mean()
    assert between < 0.15  # a bell of this spread would put 30 % there


def test_drawn_values_have_the_spread_of_their_voxel_wherever_modes_lie() -> None:
    """Half of the grid moves as one, the other half does not: a field that is stationary but for
    that mode varies more here and less there; the values drawn do not."""
    rng = np.random.default_rng(4)
    people = [Condition(50.0 + i % 3, "F" if i % 2 else "M") for i in range(300)]
    volumes = rng.standard_normal((300, 1, *SHAPE))
    volumes[:, :, :4] = 0.3 * volumes[:, :, :4] + rng.standard_normal((300, 1, 1, 1, 1))
    volumes /= volumes.std(axis=0)
    prior = Prior.fit(volumes.astype(np.float32), np.ones(SHAPE, dtype=bool), people)
    waves = Waves(prior.covariance)
    noise = torch.randn(2000, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    field = waves.inverse(waves.power.sqrt() * noise).numpy()
    sd = [field[:, :, :4].std(axis=0).mean(), field[:, :, 4:].std(axis=0).mean()]
    assert sd[0] > 1.1 * sd[1]
    drawn = prior.volume(field, [Condition(51.0, "F")] * 2000)
    found = [drawn[:, :, :4].std(axis=0).mean(), drawn[:, :, 4:].std(axis=0).mean()]
    np.testing.assert_allclose(found, 1, atol=0.05)


def test_prior_gain_finds_a_site_factor() -> None:
    rng = np.random.default_rng(1)
    people = [Condition(float(a), "F") for a in range(20, 60)]
    mask = np.ones((len(people), *SHAPE), dtype=bool)
    volumes = (0.4 + 0.02 * rng.standard_normal((len(people), 2, *SHAPE))).astype(np.float32)
    prior = Prior.fit(volumes, mask[0], people)
    factor = np.array([0.9, 1.1], dtype=np.float32)
    found = prior.with_gain(volumes * factor[:, None, None, None], people)
    np.testing.assert_allclose(
        found.gain, [factor[0], 1], rtol=1e-3
    )  # the level set keeps its size
