"""The training objective of every path and prediction."""

from __future__ import annotations

from torch import Tensor

from models.denoiser import Denoiser


def errors(
    denoiser: Denoiser,
    residual: Tensor,
    t: Tensor,
    noise: Tensor,
    condition: Tensor,
    mean: Tensor,
    slices: Tensor | None = None,
    withheld: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Squared error of the network's output, a weighted sum over each image, and the sum of the
    weights; (B,) each.

    The residual counts in local standard deviations; the weights are their squares (mean 1 per
    channel), so that an error counts as it does in the maps. It is how the power of the closed
    form is averaged, too: fields differ from tissue to tissue, and with another average the
    network would first learn to undo this one.

    With the clean estimate start + k F that is |clean - r_0|^2 / k^2: the loss of Ho et al. 2020,
    eq. 14, where F predicts the noise. Prediction ``matched`` divides by the variance that the
    Gaussian model leaves. That weighs all times alike and gives the number a yardstick: an
    untrained denoiser scores about 1, and what lies below 1 was learnt.

    Parameters
    ----------
    residual, noise : r_0 and eps, (B, C, X, Y, Z).
    t : (B,).
    condition, mean, slices, withheld : as in `Denoiser.forward`.
    """
    a, s = (part.view(-1, 1, 1, 1, 1) for part in denoiser.path(t))
    estimate = denoiser(a * residual + s * noise, t, condition, mean, slices, withheld)
    truth = denoiser.take(residual, slices)
    weight = denoiser.take(denoiser.weight.expand_as(residual), slices)
    error = ((estimate.clean - truth) / estimate.scale) ** 2 * weight
    return error.flatten(1).sum(dim=1), weight.flatten(1).sum(dim=1)
