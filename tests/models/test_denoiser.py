"""The closed-form part of the denoiser, against what is known of Gaussians."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.condition import Condition
from models.config import FlowConfig, NetworkConfig
from models.denoiser import Denoiser
from models.field import Covariance, Waves
from models.flow import loss
from models.prior import Prior
from tests.models.fields import SHAPE, coloured, white

ZOOMS = (20.0, 12.0, 20.0)
SMALL = NetworkConfig(channels=(16, 16), attention=False)


def prior_of(covariance: Covariance) -> Prior:
    """A prior without mean or mask whose residual has the given covariance."""
    return Prior(
        coefficients=np.zeros((4, 2, *SHAPE), dtype=np.float32),
        mask=np.ones(SHAPE, dtype=bool),
        scale=np.ones((2, *SHAPE), dtype=np.float32),
        knots=np.broadcast_to(
            np.arange(-2, 2.5, 0.5, dtype=np.float32)[:, None, None, None, None], (9, 2, *SHAPE)
        ),
        covariance=covariance,
        gain=np.ones(2, dtype=np.float32),
    )


def inputs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(n, 2), torch.zeros(n, 2, *SHAPE)


def test_white_residual_gives_the_scalar_wiener_filter() -> None:
    denoiser = Denoiser("3d", prior_of(white(2)), SMALL)
    noisy = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.5, 0.9])
    estimate = denoiser(noisy, t, *inputs(3))
    a = (1 - t).view(-1, 1, 1, 1, 1)
    expected = a / (a**2 + t.view(-1, 1, 1, 1, 1) ** 2)
    torch.testing.assert_close(estimate.clean, expected * noisy, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        estimate.spread.flatten(1)[:, 0], t / torch.sqrt((1 - t) ** 2 + t**2), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_untrained_denoiser_is_the_gaussian_model(dim: str) -> None:
    denoiser = Denoiser(dim, prior_of(coloured(2)), SMALL)  # type: ignore[arg-type]
    noisy = torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    estimate = denoiser(noisy, torch.tensor([0.4]), *inputs(1))
    assert not estimate.correction.any()


def test_untrained_loss_is_one_on_data_of_the_model() -> None:
    denoiser = Denoiser("3d", prior_of(coloured(2)), SMALL)
    rng, waves = torch.Generator().manual_seed(2), Waves(coloured(2))
    data = waves.inverse(torch.randn(64, 2, *SHAPE, generator=rng) * waves.power.sqrt())
    noise = torch.randn(data.shape, generator=rng)
    for t in (0.2, 0.5, 0.8):
        value = loss(denoiser, data, torch.full((64,), t), noise, *inputs(64)).detach()
        assert float(value) == pytest.approx(1.0, abs=0.05)


def trained(dim: str, covariance: Covariance | None = None) -> Denoiser:
    torch.manual_seed(0)
    denoiser = Denoiser(dim, prior_of(covariance or coloured(2)), SMALL)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in denoiser.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return denoiser


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


def test_flow_config_moves_times_towards_noise() -> None:
    from models.flow import draw_times

    draw = [
        draw_times(4000, FlowConfig(logit_mean=m), torch.Generator().manual_seed(0)).mean()
        for m in (0.0, 1.0)
    ]
    assert float(draw[0]) == pytest.approx(0.5, abs=0.02)
    assert draw[1] > draw[0] + 0.1


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
    assert abs(residual).max() <= 3
    cut = abs(residual) == 3
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
