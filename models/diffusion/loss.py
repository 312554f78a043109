"""The training loss of both paths."""

from __future__ import annotations

from torch import Tensor

from models.diffusion.denoiser import Denoiser


def errors(
    denoiser: Denoiser,
    residual: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Tensor,
    slices: Tensor | None = None,
    withheld: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the squared error of the network's output, summed over the voxels that a brain may
    reach, and the number of values in each sum; (B,) each.

    With the clean estimate c + k * output, it is |clean - r_0|^2 / k^2. For ``ddpm``, where the
    output predicts the noise, that is the loss of Ho et al. 2020, eq. 14. For ``flow``, k^2 is the
    variance that the Gaussian model leaves, so that all times weigh alike and the loss of an
    untrained denoiser is about 1.

    Parameters
    ----------
    residual, noise : r_0 and eps, (B, C, X, Y, Z).
    t : (B,).
    condition, slices, withheld : as in `Denoiser.forward`.
    """
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(t))
    estimate = denoiser(a * residual + s * noise, t, condition, slices, withheld)
    truth = denoiser.take(residual, slices)
    mask = denoiser.take(denoiser.mask.expand_as(residual), slices)
    error = ((estimate.clean - truth) / estimate.scale) ** 2 * mask
    return error.flatten(1).sum(dim=1), mask.flatten(1).sum(dim=1)
