"""The loss against those of the papers it generalises."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import mse_loss

from models.config import PathConfig
from models.denoiser import Denoiser
from models.field import Waves
from models.loss import errors
from tests.models.fields import SHAPE, coloured
from tests.models.paths import PATHS, PUBLISHED
from tests.models.priors import SMALL, denoiser_of, prior_of, randomised

TIMES = torch.tensor([20, 300, 700, 990])  # MONAI's numbers of DDPM's steps 21, 301 ...


def plain(config: PathConfig) -> Denoiser:
    return randomised(denoiser_of("3d", coloured(2), config))


def batch() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {
        "residual": torch.randn(4, 2, *SHAPE, generator=rng),
        "t": (TIMES + 1) / 1000,
        "noise": torch.randn(4, 2, *SHAPE, generator=rng),
        "condition": torch.zeros(4, 2),
        "mean": torch.zeros(4, 2, *SHAPE),
    }


def loss(denoiser: Denoiser, **given: torch.Tensor) -> torch.Tensor:
    total, count = errors(denoiser, **given)
    return total.sum() / count.sum()


def output(denoiser: Denoiser, noisy: torch.Tensor) -> torch.Tensor:
    """The bare network, given the noisy image, a mean of zero and a scale of one."""
    still = [torch.zeros_like(noisy), torch.ones_like(noisy)]
    found: torch.Tensor = denoiser.network(
        torch.cat([noisy, *still], dim=1), (TIMES + 1) / 1000, torch.zeros(4, 2)
    )
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_a_start_it_is_ddpm(name: str) -> None:
    """Noise, velocity and image as MONAI's scheduler makes the targets."""
    from monai.networks.schedulers import DDPMScheduler

    scheduler = DDPMScheduler(**PUBLISHED[name])  # type: ignore[index]
    given = batch()
    noisy = scheduler.add_noise(given["residual"], given["noise"], TIMES)
    targets = {
        "epsilon": given["noise"],
        "v": scheduler.get_velocity(given["residual"], given["noise"], TIMES),
        "x": given["residual"],
    }
    for prediction, target in targets.items():
        config = PathConfig(path=name, prediction=prediction, start="none")  # type: ignore[arg-type]
        denoiser = plain(config)
        with torch.no_grad():
            expected = mse_loss(output(denoiser, noisy), target)
            torch.testing.assert_close(loss(denoiser, **given), expected, rtol=1e-4, atol=0)


def test_without_a_start_it_is_flow_matching() -> None:
    given = batch()
    t = given["t"].view(-1, 1, 1, 1, 1)
    noisy = (1 - t) * given["residual"] + t * given["noise"]
    denoiser = plain(PathConfig(prediction="v", start="none"))
    with torch.no_grad():
        expected = mse_loss(output(denoiser, noisy), given["noise"] - given["residual"])
        torch.testing.assert_close(loss(denoiser, **given), expected, rtol=1e-4, atol=0)


def test_by_default_it_is_the_error_in_units_of_what_the_wiener_filter_leaves() -> None:
    given = batch()
    denoiser = randomised(denoiser_of("3d", coloured(2)))
    power, t = Waves(coloured(2)).power, given["t"].view(-1, 1, 1, 1, 1)
    left = (t**2 * power / ((1 - t) ** 2 * power + t**2)).mean(dim=(1, 2, 3, 4), keepdim=True)
    noisy = (1 - t) * given["residual"] + t * given["noise"]
    with torch.no_grad():
        estimate = denoiser(noisy, given["t"], given["condition"], given["mean"])
        expected = ((estimate.clean - given["residual"]) ** 2 / left).mean()
        torch.testing.assert_close(loss(denoiser, **given), expected, rtol=1e-5, atol=0)


def test_errors_count_as_they_do_in_the_maps() -> None:
    """r is counted in local standard deviations; times these, an error is one of FA or of MD."""
    rng, given = torch.Generator().manual_seed(3), batch()
    spread = 0.1 + torch.rand(2, *SHAPE, generator=rng)
    mask = torch.rand(SHAPE, generator=rng) < 0.7
    prior = replace(prior_of(coloured(2)), scale=spread.numpy(), mask=mask.numpy())
    denoiser = randomised(Denoiser("3d", prior, SMALL, PathConfig(prediction="x")))
    t = given["t"].view(-1, 1, 1, 1, 1)
    noisy = (1 - t) * given["residual"] + t * given["noise"]
    with torch.no_grad():
        estimate = denoiser(noisy, given["t"], given["condition"], given["mean"])
        error = (spread * (estimate.clean - given["residual"]))[..., mask]
        shares = error.square().mean(dim=(0, 2)) / spread[:, mask].square().mean(dim=1)
        torch.testing.assert_close(loss(denoiser, **given), shares.mean(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", PATHS)
def test_untrained_loss_is_one_on_data_of_the_model(name: str) -> None:
    denoiser = denoiser_of("3d", coloured(2), PathConfig(path=name))  # type: ignore[arg-type]
    rng, waves = torch.Generator().manual_seed(2), Waves(coloured(2))
    data = waves.inverse(torch.randn(64, 2, *SHAPE, generator=rng) * waves.power.sqrt())
    noise, rest = torch.randn(data.shape, generator=rng), torch.zeros(64, 2)
    for t in (0.2, 0.5, 0.8):
        at = torch.full((64,), t)
        value = loss(
            denoiser,
            residual=data,
            t=at,
            noise=noise,
            condition=rest,
            mean=torch.zeros_like(data),
        ).detach()
        assert float(value) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_all_slices_together_are_the_volume(plane: str) -> None:
    denoiser = randomised(denoiser_of("2d", coloured(2), plane=plane))  # type: ignore[arg-type]
    given, depth = batch(), batch()["residual"].shape[denoiser.axis]
    slices = torch.randperm(depth, generator=torch.Generator().manual_seed(1)).expand(4, -1)
    with torch.no_grad():
        whole, some = loss(denoiser, **given), loss(denoiser, **given, slices=slices)
    torch.testing.assert_close(some, whole, rtol=1e-5, atol=0)


def test_every_combination_learns() -> None:
    """A gradient reaches the network, and it is finite, at the ends of training times too."""
    given = batch() | {"t": torch.tensor([1e-3, 0.01, 0.5, 1 - 1e-3])}
    for name, prediction, start in itertools.product(
        PATHS, ("matched", "x", "epsilon", "v"), ("gaussian", "none")
    ):
        config = PathConfig(path=name, prediction=prediction, start=start)  # type: ignore[arg-type]
        denoiser = Denoiser("3d", prior_of(coloured(2)), SMALL, config)
        loss(denoiser, **given).backward()  # type: ignore[no-untyped-call]
        gradients = [p.grad for p in denoiser.network.parameters() if p.grad is not None]
        assert gradients
        assert all(bool(g.isfinite().all()) for g in gradients), config
        assert any(bool(g.any()) for g in gradients), config
