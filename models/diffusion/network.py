"""The network: MONAI's diffusion UNet, conditioned on continuous values."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from models.config import NetworkConfig
from models.diffusion import recompute

# Shapes: B batch, C channels, S... spatial (2 or 3 axes), E condition entries.


class ConditionedUNet(nn.Module):
    """Maps images, their time and their condition to images of the same size.

    Parameters
    ----------
    dims : spatial axes, 2 or 3.
    in_channels, out_channels : of the images.
    condition_size : E, entries of the condition vector.
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        condition_size: int,
        config: NetworkConfig,
    ) -> None:
        super().__init__()
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        levels = len(config.channels)
        self.unet = DiffusionModelUNet(
            spatial_dims=dims,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=config.channels,
            num_res_blocks=config.res_blocks,
            attention_levels=[config.attention and i == levels - 1 for i in range(levels)],
            norm_num_groups=8,
            num_head_channels=32 if config.channels[-1] % 32 == 0 else config.channels[-1],
            num_class_embeds=1,
            use_flash_attention=True,
        )
        # MONAI embeds a class number, but age, sex and position are continuous. Its forward calls
        # this module and adds the result to the time embedding.
        width = 4 * config.channels[0]
        self.unet.class_embedding = nn.Sequential(
            nn.Linear(condition_size, width), nn.SiLU(), nn.Linear(width, width)
        )

    def recompute(self, on: bool) -> None:
        """Sets whether the backward pass computes norms and activations again, see `recompute`."""
        recompute.switch(self.unet, on)

    def forward(self, x: Tensor | tuple[Tensor, ...], t: Tensor, condition: Tensor) -> Tensor:
        """Returns (B, out_channels, S...).

        Parameters
        ----------
        x : (B, C, S...); or its channels in parts, which are put together for a moment only.
        t : (B,), in [0, 1].
        condition : (B, E).
        """
        parts = x if isinstance(x, tuple) else (x,)
        joined = torch.cat(parts, dim=1)
        return cast(Tensor, self.unet(joined, timesteps=1000.0 * t, class_labels=condition))
