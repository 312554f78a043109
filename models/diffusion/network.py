"""The network: MONAI's diffusion UNet on patches of voxels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.config import NetworkConfig

# Shapes: B batch, C channels, S... spatial (2 or 3 axes), E condition entries.


class PatchUNet(nn.Module):
    """Maps images, their time and their condition to images of the same size.

    A patch of voxels is turned into channels of one cell (pixel unshuffle) before MONAI's
    DiffusionModelUNet, and back after it.

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

        self.patch = config.patch
        cells = config.patch**dims
        levels = len(config.channels)
        self.unet = DiffusionModelUNet(
            spatial_dims=dims,
            in_channels=in_channels * cells,
            out_channels=out_channels * cells,
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
        """Sets whether the backward pass computes activations again instead of keeping them.

        Residual and attention blocks then keep their inputs alone (Chen et al. 2016): about a
        third of the memory, for one more forward pass per step. Outputs and gradients are the
        same.
        """
        from monai.networks.blocks import SpatialAttentionBlock
        from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock

        for block in self.unet.modules():
            if isinstance(block, DiffusionUNetResnetBlock | SpatialAttentionBlock):
                # The method is replaced on the instance, so that neither MONAI's classes nor the
                # names of parameters change.
                block.__dict__.pop("forward", None)
                if on:
                    block.forward = partial(_checkpointed, block.forward)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Returns (B, out_channels, S...).

        Parameters
        ----------
        x : (B, C, S...).
        t : (B,), in [0, 1].
        condition : (B, E).
        """
        from monai.networks.utils import pixelshuffle, pixelunshuffle

        dims = x.ndim - 2
        packed = pixelunshuffle(x, dims, self.patch)
        out = self.unet(packed, timesteps=1000.0 * t, class_labels=condition)
        return cast(Tensor, pixelshuffle(out, dims, self.patch))


def _checkpointed(forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    # Nothing in these blocks is random, so that the random state need not be kept.
    out: Tensor = checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
