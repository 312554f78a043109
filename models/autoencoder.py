"""The autoencoder: volumes of residuals to latents on a coarser grid, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.config import LatentConfig
from models.network import depth_to_space, space_to_depth

Array = NDArray[np.float32]

# Shapes: B volumes, C channels of the residual, K of the latents, X Y Z voxels, x y z cells.

# As for the denoiser: always as many volumes, so that none depends on how many there are.
_TOGETHER = 2


class Autoencoder(nn.Module):
    """MONAI's convolutional variational autoencoder (Rombach et al. 2022, section 3.1), without
    attention, on space-to-depth patches.

    A volume's latents are the mean of its posterior over their standard deviation in the training
    subjects, channel by channel: of order one, and without noise.

    Parameters
    ----------
    channels : C.
    """

    sd: Tensor

    def __init__(self, channels: int, config: LatentConfig) -> None:
        super().__init__()
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        self.patch = config.patch
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
        self.register_buffer("sd", torch.ones(config.latents, 1, 1, 1))

    def forward(self, residual: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Volumes (B, C, X, Y, Z) made from a draw of the posterior; its mean and standard
        deviation, (B, K, x, y, z) as the `noise` of the draw; not yet over `sd`."""
        mean, spread = self.network.encode(space_to_depth(residual, self.patch))
        return self._volumes(mean + spread * noise), mean, spread

    def encode(self, residual: Array) -> Array:
        """Latents (n, K, x, y, z) of residuals (n, C, X, Y, Z)."""

        def latents(volumes: Tensor) -> Tensor:
            mean, _ = self.network.encode(space_to_depth(volumes, self.patch))
            return cast(Tensor, mean) / self.sd

        return self._in_pairs(residual, latents)

    def decode(self, latents: Array) -> Array:
        """Residuals (n, C, X, Y, Z) of latents (n, K, x, y, z)."""
        return self._in_pairs(latents, lambda cells: self._volumes(cells * self.sd))

    def _volumes(self, latents: Tensor) -> Tensor:
        return depth_to_space(cast(Tensor, self.network.decode(latents)), self.patch)

    def _in_pairs(self, rows: Array, work: Callable[[Tensor], Tensor]) -> Array:
        self.eval()
        done = []
        for start in range(0, len(rows), _TOGETHER):
            chosen = [min(start + k, len(rows) - 1) for k in range(_TOGETHER)]
            with torch.inference_mode():
                made = work(torch.from_numpy(rows[chosen]).to(self.sd.device))
            done.append(made.cpu().numpy()[: len(rows) - start])
        return np.concatenate(done)
