"""The loss against those of the papers it follows, and which voxels are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from models.config import PathName, Plane
from models.diffusion.denoiser import Denoiser
from models.diffusion.loss import TrainingLoss, errors
from models.prior.spectrum import SpectralBasis
from tests.models.fields import SHAPE, coloured
from tests.models.priors import SMALL, denoiser_of, expected_of, noise, prior_of, randomised

TIMES = torch.tensor([20, 300, 700, 990])  # MONAI's numbers of DDPM's steps 21, 301 ...
PATHS: tuple[PathName, ...] = ("flow", "ddpm")


def batch() -> dict[str, Tensor]:
    return {
        "residual": noise(4, seed=0),
        "expected": expected_of(4),
        "t": (TIMES + 1) / 1000,
        "noise": noise(4, seed=1),
        "condition": torch.zeros(4, 2),
    }


def loss(denoiser: Denoiser, **given: Tensor) -> Tensor:
    total, count = errors(denoiser, **given)
    return total.sum() / count.sum()


def test_for_ddpm_it_is_the_error_of_the_noise() -> None:
    """Noisy images as MONAI's scheduler makes them, and the mean squared error of the noise."""
    from monai.networks.schedulers import DDPMScheduler

    scheduler, given = DDPMScheduler(schedule="linear_beta"), batch()
    denoiser = randomised(denoiser_of("3d", coloured(2), "ddpm"))
    noisy = scheduler.add_noise(given["residual"], given["noise"], TIMES)
    shown = denoiser.network_range(given["expected"])
    with torch.no_grad():
        predicted = denoiser.network((noisy, shown), given["t"], given["condition"])
        known = mse_loss(predicted, given["noise"])
        torch.testing.assert_close(loss(denoiser, **given), known, rtol=1e-4, atol=0)


def test_for_the_flow_it_is_the_error_in_units_of_what_the_wiener_filter_leaves() -> None:
    given = batch()
    denoiser = randomised(denoiser_of("3d", coloured(2)))
    power, t = SpectralBasis(coloured(2)).power, given["t"].view(-1, 1, 1, 1, 1)
    left = (t**2 * power / ((1 - t) ** 2 * power + t**2)).mean(dim=(1, 2, 3, 4), keepdim=True)
    noisy = (1 - t) * given["residual"] + t * given["noise"]
    with torch.no_grad():
        estimate = denoiser(noisy, given["t"], given["condition"], given["expected"])
        inside = denoiser.output_mask(given["expected"]).expand_as(noisy) > 0
        known = ((estimate.clean - given["residual"]) ** 2 / left)[inside].mean()
        torch.testing.assert_close(loss(denoiser, **given), known, rtol=1e-5, atol=0)


@pytest.mark.parametrize("path", PATHS)
def test_every_voxel_of_brain_and_mask_counts_alike_and_no_other(path: PathName) -> None:
    rng, given = torch.Generator().manual_seed(3), batch()
    mask = torch.rand(SHAPE, generator=rng) < 0.7
    spread = 0.1 + torch.rand(6, *SHAPE, generator=rng)
    prior = prior_of(coloured(2))
    template = replace(prior.template, mask=mask.numpy())
    prior = replace(prior, scale=spread.numpy(), template=template)
    denoiser = randomised(Denoiser("3d", prior, SMALL, path))
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(given["t"]))
    with torch.no_grad():
        noisy = a * given["residual"] + s * given["noise"]
        estimate = denoiser(noisy, given["t"], given["condition"], given["expected"])
        error = (estimate.clean - given["residual"]) / estimate.scale
        total, count = errors(denoiser, **given)
    for i, brain in enumerate(given["expected"][:, -1] > 0):
        # Without a Gaussian model, the network has to speak beyond the brain as well.
        inside = mask & brain if path == "flow" else mask
        known = error[i][:, inside].square().sum()
        torch.testing.assert_close(total[i], known, rtol=1e-5, atol=0)
        assert count[i] == 2 * int(inside.sum())


def test_beyond_the_brain_the_flow_is_the_gaussian_model() -> None:
    denoiser, given = randomised(denoiser_of("3d", coloured(2))), batch()
    t = given["t"].view(-1, 1, 1, 1, 1)
    noisy = (1 - t) * given["residual"] + t * given["noise"]
    with torch.no_grad():
        estimate = denoiser(noisy, given["t"], given["condition"], given["expected"])
    differs = (estimate.clean != estimate.gaussian_mean).any(dim=1)
    assert torch.equal(differs, given["expected"][:, -1] > 0)


def test_untrained_loss_of_the_flow_is_one_on_data_of_the_model() -> None:
    denoiser, basis = denoiser_of("3d", coloured(2)), SpectralBasis(coloured(2))
    data = basis.draw(noise(64, seed=2))
    for t in (0.2, 0.5, 0.8):
        value = loss(
            denoiser,
            residual=data,
            expected=expected_of(64),
            t=torch.full((64,), t),
            noise=noise(64, seed=3),
            condition=torch.zeros(64, 2),
        ).detach()
        assert float(value) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_all_slices_together_are_the_volume(plane: Plane, path: PathName) -> None:
    denoiser = randomised(denoiser_of("2d", coloured(2), path, plane))
    given, depth = batch(), batch()["residual"].shape[denoiser.axis]
    slices = torch.randperm(depth, generator=torch.Generator().manual_seed(1)).expand(4, -1)
    with torch.no_grad():
        whole, some = errors(denoiser, **given), errors(denoiser, **given, parts=slices)
    torch.testing.assert_close(some, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("path", PATHS)
def test_cubes_that_fill_the_grid_are_the_volume_while_the_network_is_silent(
    path: PathName,
) -> None:
    denoiser, given = denoiser_of("3d", coloured(2), path), batch()
    corners = torch.cartesian_prod(*(torch.arange(0, n, 4) for n in SHAPE))
    cubes = (corners[..., None] + torch.arange(4)).expand(4, -1, -1, -1)
    with torch.no_grad():
        whole, parts = errors(denoiser, **given), errors(denoiser, **given, parts=cubes)
    for all_of_it, each in zip(whole, parts, strict=True):
        assert each.shape == (4 * len(corners),)
        torch.testing.assert_close(each.view(4, -1).sum(dim=1), all_of_it, rtol=1e-5, atol=0)


def test_the_module_adds_up_the_batch() -> None:
    denoiser, given = randomised(denoiser_of("3d", coloured(2))), batch()
    names = ("residual", "expected", "t", "noise", "condition")
    with torch.no_grad():
        total, count = TrainingLoss(denoiser)(*(given[name] for name in names), None, None)
        sums, counts = errors(denoiser, **given)
    assert torch.equal(total, sums.sum())
    assert count == counts.sum() == 2 * (given["expected"][:, -1] > 0).sum()


@pytest.mark.parametrize("path", PATHS)
def test_both_paths_learn(path: PathName) -> None:
    """A gradient reaches the network, and it is finite, at the ends of training times too."""
    given = batch() | {"t": torch.tensor([1e-3, 0.01, 0.5, 1 - 1e-3])}
    denoiser = denoiser_of("3d", coloured(2), path)
    loss(denoiser, **given).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in denoiser.network.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients)
