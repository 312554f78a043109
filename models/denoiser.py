"""The denoiser: the closed-form Gaussian estimate plus what a 2D or 3D network adds to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.config import Dim, NetworkConfig
from models.field import Waves
from models.network import PatchUNet
from models.prior import Prior
from models.sampler import spread

# Shapes: B volumes, C channels (maps and level set), X Y Z voxels, S slices, E condition entries.

# A 2D network sees its slice and one neighbour on either side, so that slices that are denoised
# side by side agree with each other.
_NEIGHBOURS = 1


class Estimate(NamedTuple):
    """Estimates of the clean residual, and their parts.

    Parameters
    ----------
    clean : Gaussian estimate + spread * correction; (B, C, X, Y, Z), or (B, C, X, Y, S) for
        slices.
    correction : the network's output, of the same shape.
    spread : (B, 1, 1, 1, 1), standard deviation that the Gaussian model leaves to its estimate.
    """

    clean: Tensor
    correction: Tensor
    spread: Tensor


class Denoiser(nn.Module):
    """Estimates the clean residual r_0 from r_t = (1 - t) r_0 + t eps, eps ~ N(0, 1).

    For a Gaussian field that the orthonormal transform F makes independent, of power S, the best
    estimate is the Wiener filter E[r_0 | r_t] = F^-1 [ a S / (a^2 S + t^2) F r_t ], a = 1 - t,
    with variance t^2 S / (a^2 S + t^2) left to each coefficient. The network's output is scaled by
    the root of their mean and added (the skip and output scalings of Karras et al. 2022, eq. 7,
    for coloured data).
    Its last layer starts at zero: an untrained denoiser *is* the Gaussian model.

    Parameters
    ----------
    dim : ``2d``: a network over axial slices, given each slice's neighbours and its position,
        all slices of a volume side by side; ``3d``: a network over the volume.
    """

    mask: Tensor
    scale: Tensor

    def __init__(self, dim: Dim, prior: Prior, config: NetworkConfig) -> None:
        super().__init__()
        self.dim: Dim = dim
        channels = prior.channels
        self.register_buffer("mask", torch.from_numpy(prior.mask.astype("float32")))
        self.waves = Waves(prior.covariance)
        peak = prior.scale.max(axis=(1, 2, 3), keepdims=True)
        self.register_buffer("scale", torch.from_numpy(prior.scale / peak))
        # Noisy image, Gaussian estimate, conditional mean and local scale.
        window = 2 * _NEIGHBOURS + 1 if dim == "2d" else 1
        self.network = PatchUNet(
            dims=2 if dim == "2d" else 3,
            in_channels=2 * channels * window + 2 * channels,
            out_channels=channels,
            condition_size=3 if dim == "2d" else 2,
            config=config,
        )

    def gaussian(self, noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The Gaussian estimate (B, C, X, Y, Z) and its spread (B, 1, 1, 1, 1)."""
        time, power = t.view(-1, 1, 1, 1, 1), self.waves.power
        kept = (1 - time) * power / ((1 - time) ** 2 * power + time**2)
        clean = self.waves.inverse(self.waves(noisy) * kept) * self.mask
        return clean, spread(power, t)

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        condition: Tensor,
        mean: Tensor,
        slices: Tensor | None = None,
    ) -> Estimate:
        """Estimate the clean residual.

        Parameters
        ----------
        noisy : r_t, (B, C, X, Y, Z).
        t : (B,).
        condition : (B, 2), see `models.generator.condition_vector`.
        mean : conditional mean volume, (B, C, X, Y, Z).
        slices : 2D only: (B, S) axial slice numbers to estimate; default all of them.
        """
        clean, left = self.gaussian(noisy, t)
        if self.dim == "3d":
            images = torch.cat([noisy, clean, mean, self.scale.expand_as(mean)], dim=1)
            added = self.network(images, t, condition) * self.mask
            return Estimate(clean + left * added, added, left)
        if slices is None:
            slices = torch.arange(noisy.shape[-1], device=noisy.device).expand(len(noisy), -1)
        images, conditions, mask = self._slabs(noisy, clean, mean, condition, slices)
        added = self.network(images, t.repeat_interleave(slices.shape[1]), conditions) * mask
        added = added.unflatten(0, slices.shape).permute(0, 2, 3, 4, 1)
        at = slices[:, None, None, None, :].expand(-1, clean.shape[1], *clean.shape[2:4], -1)
        clean = clean.gather(4, at)
        return Estimate(clean + left * added, added, left)

    def _slabs(
        self, noisy: Tensor, clean: Tensor, mean: Tensor, condition: Tensor, slices: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Network input (B*S, channels, X, Y), conditions (B*S, 3) and masks (B*S, 1, X, Y)."""
        depth = noisy.shape[-1]
        moving = nn.functional.pad(torch.cat([noisy, clean], dim=1), (_NEIGHBOURS, _NEIGHBOURS))
        still = torch.cat([mean, self.scale.expand_as(mean)], dim=1)
        rows = torch.arange(len(noisy), device=noisy.device)[:, None]
        # Advanced indices around a slice put their axes first: (B, S, channels, X, Y).
        window = [moving[rows, ..., slices + k] for k in range(2 * _NEIGHBOURS + 1)]
        images = torch.cat([*window, still[rows, ..., slices]], dim=2).flatten(0, 1)
        position = 2 * slices / (depth - 1) - 1
        conditions = torch.cat(
            [condition[:, None].expand(-1, slices.shape[1], -1), position[..., None]], dim=2
        ).flatten(0, 1)
        mask = self.mask.permute(2, 0, 1)[slices].flatten(0, 1)[:, None]
        return images, conditions, mask
