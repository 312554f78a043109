"""The autoencoder: volumes of residuals to latents on a coarser grid, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contracts.errors import UserError
from models.config import LatentConfig
from models.network import depth_to_space, space_to_depth

Array = NDArray[np.float32]

# Shapes: B volumes, C channels of the residual, K of the latents, X Y Z voxels, x y z cells.

# As for the denoiser: always as many volumes, so that none depends on how many there are.
_TOGETHER = 2
# Of the posterior before training: little noise beside latents of order one.
_LOG_VARIANCE = -4.0
_LEAST = 1e-6


class Autoencoder(nn.Module):
    """Principal components of cells, and what MONAI's convolutional variational autoencoder
    (Rombach et al. 2022, section 3.1; without attention, on space-to-depth patches) adds to them.

    Encoder and decoder are the components' coefficients and their sum; the network's last layers
    start at zero. So an untrained autoencoder is the best linear code of single cells.

    A volume's latents are the mean of its posterior over their standard deviation in the training
    subjects, channel by channel: of order one, and without noise.

    Parameters
    ----------
    channels : C.
    """

    components: Tensor
    sd: Tensor

    def __init__(self, channels: int, config: LatentConfig) -> None:
        super().__init__()
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        self.patch, self.edge = config.patch, config.edge
        levels = len(config.channels)
        self.network = AutoencoderKL(
            spatial_dims=3,
            in_channels=channels * config.patch**3,
            out_channels=channels * config.patch**3,
            channels=config.channels,
            latent_channels=config.latents,
            num_res_blocks=(config.res_blocks,) * levels,
            attention_levels=(False,) * levels,
            norm_num_groups=8,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        last = self.network.quant_conv_mu, self.network.decoder.blocks[-1]
        for layer in (*last, self.network.quant_conv_log_sigma):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        nn.init.constant_(self.network.quant_conv_log_sigma.conv.bias, _LOG_VARIANCE)
        size = channels * config.edge**3
        self.register_buffer("components", torch.zeros(config.latents, size))
        self.register_buffer("sd", torch.ones(config.latents, 1, 1, 1))

    def start(self, residuals: Iterable[Array]) -> None:
        """Set the components to those of residuals (C, X, Y, Z).

        Raises
        ------
        UserError : if there are more latents than values in a cell.
        """
        count, size = self.components.shape
        if count > size:
            raise UserError(f"{count} latents of a cell of {size} values: lower latents")
        gram = torch.zeros(size, size, dtype=torch.float64)
        total = 0
        for one in residuals:
            cells = space_to_depth(torch.from_numpy(one)[None], self.edge)[0].flatten(1).double()
            gram += cells @ cells.T
            total += cells.shape[1]
        variance, vectors = torch.linalg.eigh(gram / total)
        largest = variance[-count:].flip(0).clamp(min=_LEAST).sqrt()
        # Coefficients over their standard deviation, so that latents are near N(0, 1).
        self.components.copy_((vectors[:, -count:].flip(1) / largest).T)

    def forward(self, residual: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Volumes (B, C, X, Y, Z) made from a draw of the posterior; its mean and standard
        deviation, (B, K, x, y, z) as the `noise` of the draw; not yet over `sd`."""
        mean, spread = self._posterior(residual)
        return self._volumes(mean + spread * noise), mean, spread

    def encode(self, residual: Array) -> Array:
        """Latents (n, K, x, y, z) of residuals (n, C, X, Y, Z)."""

        def latents(volumes: Tensor) -> Tensor:
            return self._posterior(volumes)[0] / self.sd

        return self._in_pairs(residual, latents)

    def decode(self, latents: Array) -> Array:
        """Residuals (n, C, X, Y, Z) of latents (n, K, x, y, z)."""
        return self._in_pairs(latents, lambda cells: self._volumes(cells * self.sd))

    def _posterior(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        added, spread = self.network.encode(space_to_depth(residual, self.patch))
        cells = space_to_depth(residual, self.edge)
        return torch.einsum("kc,bcxyz->bkxyz", self.components, cells) + added, spread

    def _volumes(self, latents: Tensor) -> Tensor:
        # The components are orthogonal: over their squared length they lead back.
        back = self.components / (self.components**2).sum(dim=1, keepdim=True).clamp(min=_LEAST)
        cells = torch.einsum("kc,bkxyz->bcxyz", back, latents)
        added = depth_to_space(cast(Tensor, self.network.decode(latents)), self.patch)
        return depth_to_space(cells, self.edge) + added

    def _in_pairs(self, rows: Array, work: Callable[[Tensor], Tensor]) -> Array:
        self.eval()
        done = []
        for start in range(0, len(rows), _TOGETHER):
            chosen = [min(start + k, len(rows) - 1) for k in range(_TOGETHER)]
            with torch.inference_mode():
                made = work(torch.from_numpy(rows[chosen]).to(self.sd.device))
            done.append(made.cpu().numpy()[: len(rows) - start])
        return np.concatenate(done)
