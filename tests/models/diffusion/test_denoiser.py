"""The closed-form part of the denoiser, against what is known of Gaussians and of DDPM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from models.config import Dim, NetworkConfig, PathName
from models.diffusion.denoiser import Denoiser
from models.prior.covariance import Covariance
from models.prior.spectrum import SpectralBasis
from tests.models.fields import coloured, stationary, white
from tests.models.priors import denoiser_of, expected_of, noise, prior_of, randomised

TIMES = torch.tensor([0.1, 0.5, 0.9])
PATHS: tuple[PathName, ...] = ("flow", "ddpm")


def test_white_residual_gives_the_scalar_wiener_filter() -> None:
    denoiser, noisy = denoiser_of("3d", white(2)), noise(3)
    estimate = denoiser(noisy, TIMES, torch.zeros(3, 2), expected_of(3))
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(TIMES))
    total = a**2 + s**2
    torch.testing.assert_close(estimate.clean, a / total * noisy, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(estimate.scale, s / total.sqrt(), atol=1e-5, rtol=1e-4)


def test_untrained_denoiser_has_the_score_of_the_gaussian() -> None:
    """(a D - x) / s^2 is the gradient of log N(x; 0, a^2 C + s^2), C built voxel by voxel."""
    small = (4, 4, 4)
    rng = np.random.default_rng(0)
    basis = SpectralBasis(stationary(rng.uniform(0.2, 6, (1, *small)).astype(np.float32)))
    rows = basis.inverse(torch.eye(64).view(64, 1, *small)).view(64, 64).double()
    covariance = rows.T @ torch.diag(basis.power.double().flatten()) @ rows
    prior = prior_of(stationary(basis.power.numpy()))
    denoiser = Denoiser("3d", prior, NetworkConfig(channels=(16,), attention=False), "flow")
    images = torch.randn(3, 3, *small, generator=torch.Generator().manual_seed(1))
    x, expected = images[:, :1], images[:, 1:]
    clean = denoiser(x, TIMES, torch.zeros(3, 2), expected).clean.detach().double().flatten(1)
    for i, (a, s) in enumerate(zip(*denoiser.path(TIMES.double()), strict=True)):
        total = a**2 * covariance + s**2 * torch.eye(64)
        score = -torch.linalg.solve(total, x[i].double().flatten())
        found = (a * clean[i] - x[i].double().flatten()) / s**2
        torch.testing.assert_close(found, score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize("t", [0.4, 1.0])
def test_untrained_denoiser_is_the_gaussian_model(dim: Dim, t: float) -> None:
    denoiser, noisy, time = denoiser_of(dim, coloured(2)), noise(1), torch.tensor([t])
    estimate = denoiser(noisy, time, torch.zeros(1, 2), expected_of(1))
    mean = denoiser.wiener(noisy, *(p.view(-1, 1, 1, 1, 1) for p in denoiser.path(time)))
    assert not estimate.correction.any()
    torch.testing.assert_close(estimate.clean, mean, atol=0, rtol=0)


def test_the_network_sees_what_is_expected_in_units_of_the_template() -> None:
    prior, rng = prior_of(white(2)), np.random.default_rng(0)
    image = rng.normal(size=prior.template.image.shape).astype(np.float32)
    image[:-1] = 0.3 + 0.1 * image[:-1]
    denoiser = Denoiser(
        "3d",
        replace(prior, template=replace(prior.template, image=image)),
        NetworkConfig(channels=(16,), attention=False),
        "flow",
    )
    at = image[:-1, image[-1] > 0]
    distance = torch.full((1, at.shape[1]), 1 / 3)  # one voxel inside
    expected = torch.cat([torch.from_numpy(at), distance])[None, :, :, None, None]
    shown = denoiser.network_range(expected)[0].flatten(1)
    torch.testing.assert_close(shown[:-1].mean(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(shown[:-1].std(dim=1), torch.ones(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(shown[-1], torch.full_like(shown[-1], np.tanh(2 / 3)))


def test_the_gaussian_mean_is_not_rounded_with_the_network() -> None:
    denoiser, noisy = denoiser_of("3d", coloured(2)), noise(3)
    exact = denoiser(noisy, TIMES, torch.zeros(3, 2), expected_of(3))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = denoiser(noisy, TIMES, torch.zeros(3, 2), expected_of(3))
    torch.testing.assert_close(rounded.gaussian_mean, exact.gaussian_mean, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_ddpm_predicts_the_noise(dim: Dim, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true noise as the network's output, the clean image comes back."""
    denoiser = denoiser_of(dim, coloured(2), "ddpm")
    clean, eps = noise(3, seed=1), noise(3, seed=2)
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(TIMES))
    answer = eps if dim == "3d" else eps.movedim(-1, 1).flatten(0, 1)
    monkeypatch.setattr(denoiser.network, "forward", lambda *_: answer)
    estimate = denoiser(a * clean + s * eps, TIMES, torch.zeros(3, 2), expected_of(3))
    torch.testing.assert_close(estimate.clean, clean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(estimate.correction, estimate.clean)


def test_nothing_of_the_covariance_reaches_ddpm() -> None:
    found = []
    for covariance in (white(2), coloured(2)):
        torch.manual_seed(0)
        denoiser = randomised(denoiser_of("3d", covariance, "ddpm"))
        time, condition = torch.tensor([0.5]), torch.zeros(1, 2)
        found.append(denoiser(noise(1), time, condition, expected_of(1)).clean)
    assert torch.equal(*found)
    assert found[0].any()


def test_clipped_estimates_stay_in_range_and_are_else_the_same() -> None:
    denoiser = randomised(denoiser_of("3d", coloured(2), "ddpm"))
    time, condition = torch.tensor([0.97]), torch.zeros(1, 2)
    estimate = denoiser(9 * noise(1), time, condition, expected_of(1))
    clipped = estimate.clipped(3.0)
    assert (estimate.clean.abs() > 3).any()
    assert (clipped.clean.abs() <= 3).all()
    inside = estimate.clean.abs() < 3
    assert inside.any()
    assert torch.equal(clipped.clean[inside], estimate.clean[inside])


def trained(dim: Dim, covariance: Covariance | None = None, path: PathName = "flow") -> Denoiser:
    torch.manual_seed(0)
    return randomised(denoiser_of(dim, covariance or coloured(2), path))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("plane", "order"), [("coronal", (0, 2, 1)), ("sagittal", (2, 0, 1))])
def test_planes_differ_by_a_permutation_of_axes(
    plane: Any, order: tuple[int, int, int], path: PathName
) -> None:
    """A network for another plane, on volumes turned so that its slices are the axial ones."""
    axes = [0, 1, *(2 + k for k in order)]
    covariance = coloured(2)
    turned = stationary(covariance.power.transpose([0, *(1 + k for k in order)]))
    base = trained("2d", covariance, path)
    network = NetworkConfig(channels=(16, 16), attention=False, plane=plane)
    other = Denoiser("2d", prior_of(turned), network, path)
    other.network.load_state_dict(base.network.state_dict())
    rng = torch.Generator().manual_seed(6)
    noisy, t, condition = noise(2), torch.tensor([0.3, 0.7]), torch.randn(2, 2, generator=rng)
    shown = expected_of(2)
    for slices in (None, torch.tensor([[0, 5, 3], [7, 2, 2]])):
        axial = base(noisy, t, condition, shown, slices)
        found = other(noisy.permute(axes), t, condition, shown.permute(axes), slices)
        for part in ("clean", "gaussian_mean", "correction"):
            torch.testing.assert_close(
                getattr(found, part),
                getattr(axial, part).permute(axes),
                atol=1e-4,
                rtol=1e-4,
            )
