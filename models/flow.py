"""The rectified-flow training objective."""

from __future__ import annotations

import torch
from torch import Tensor

from models.config import FlowConfig
from models.denoiser import Denoiser


def draw_times(n: int, config: FlowConfig, generator: torch.Generator) -> Tensor:
    """(n,) times with logit-normal density, kept off the two ends."""
    t = torch.sigmoid(torch.randn(n, generator=generator) + config.logit_mean)
    return t.clamp(1e-3, 1 - 1e-3)


def errors(
    denoiser: Denoiser,
    residual: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Tensor,
    mean: Tensor,
    slices: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Squared error of the estimate over the variance that the Gaussian model would leave, summed
    over each image, and the number of values summed; (B,) each.

    Dividing by that variance weighs all times alike and gives the number a yardstick: an
    untrained denoiser scores about 1 per value, and what lies below 1 was learnt.

    Parameters
    ----------
    residual, noise : r_0 and eps, (B, C, X, Y, Z).
    t : (B,).
    condition, mean, slices : as in `Denoiser.forward`.
    """
    time = t.view(-1, 1, 1, 1, 1)
    estimate = denoiser((1 - time) * residual + time * noise, t, condition, mean, slices)
    truth, mask = residual, denoiser.mask.expand_as(residual[:, :1])
    if slices is not None:
        at = slices[:, None, None, None, :].expand(-1, 1, *residual.shape[2:4], -1)
        truth = residual.gather(4, at.expand(-1, residual.shape[1], -1, -1, -1))
        mask = mask.gather(4, at)
    error = ((estimate.clean - truth) / estimate.spread) ** 2 * mask
    return error.flatten(1).sum(dim=1), mask.flatten(1).sum(dim=1) * residual.shape[1]


def loss(
    denoiser: Denoiser,
    residual: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Tensor,
    mean: Tensor,
    slices: Tensor | None = None,
) -> Tensor:
    """Mean of `errors` over all values of a batch."""
    total, count = errors(denoiser, residual, t, noise, condition, mean, slices)
    mean_error: Tensor = total.sum() / count.sum()
    return mean_error
