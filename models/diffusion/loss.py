"""The training loss of both paths."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.diffusion.denoiser import Denoiser


def errors(
    denoiser: Denoiser,
    residual: Tensor,
    expected: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Tensor,
    parts: Tensor | None = None,
    withheld: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the squared error of the network's output, summed over the voxels where it counts
    (`Denoiser.output_mask`), and the number of values in each sum; (B,) each, of cubes (B * K,).

    With the clean estimate c + k * output, it is |clean - r_0|^2 / k^2. For ``ddpm``, where the
    output predicts the noise, that is the loss of Ho et al. 2020, eq. 14. For ``flow``, k^2 is the
    variance that the Gaussian model leaves, so that all times weigh alike and the loss of an
    untrained denoiser is of order 1.

    Parameters
    ----------
    residual, noise : r_0 and eps, (B, C, X, Y, Z).
    t : (B,).
    expected, condition, parts, withheld : as in `Denoiser.forward`.
    """
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(t))
    estimate = denoiser(a * residual + s * noise, t, condition, expected, parts, withheld)
    truth = denoiser.take(residual, parts)
    clean, scale = estimate.clean, estimate.scale
    del estimate  # what is left of it would stay in memory, which is at its peak below
    mask = denoiser.take(denoiser.output_mask(expected).expand_as(residual), parts)
    error = clean.sub_(truth).div_(scale).mul_(mask)
    zero = torch.zeros((), dtype=error.dtype, device=error.device).expand_as(error)
    # The backward pass of `mse_loss` makes one map, that of a square three.
    squared = nn.functional.mse_loss(error, zero, reduction="none")
    axes = (1, 2, 3, 4)
    return squared.sum(dim=axes), mask.sum(dim=axes)


class TrainingLoss(nn.Module):
    """The loss of a batch, as a module, so that data-parallel training synchronises its gradients.

    Its arguments are those of `errors` after the denoiser.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *batch: Any) -> tuple[Tensor, Tensor]:
        """Returns the sum of the errors and the number of values in it."""
        total, count = errors(self.denoiser, *batch)
        return total.sum(), count.sum()
