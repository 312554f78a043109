"""The network: MONAI's diffusion UNet on space-to-depth patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.config import NetworkConfig

# Shapes: B batch, C channels, S... spatial (2 or 3 axes), E condition entries.


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """(B, C, S...) -> (B, C * patch^d, S / patch...); inverse of `depth_to_space`."""
    if patch == 1:
        return x
    b, c, *size = x.shape
    d = len(size)
    split = [n for s in size for n in (s // patch, patch)]
    x = x.reshape(b, c, *split)
    cells, offsets = [2 + 2 * i for i in range(d)], [3 + 2 * i for i in range(d)]
    x = x.permute(0, 1, *offsets, *cells)
    return x.reshape(b, c * patch**d, *[s // patch for s in size])


def depth_to_space(x: Tensor, patch: int) -> Tensor:
    """(B, C * patch^d, S...) -> (B, C, S * patch...); inverse of `space_to_depth`."""
    if patch == 1:
        return x
    b, c, *size = x.shape
    d = len(size)
    x = x.reshape(b, c // patch**d, *[patch] * d, *size)
    order = [n for i in range(d) for n in (2 + d + i, 2 + i)]
    return x.permute(0, 1, *order).reshape(b, c // patch**d, *[s * patch for s in size])


class PatchUNet(nn.Module):
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
        # MONAI embeds a class number; age, sex and position are continuous. Its forward only
        # calls this module and adds the result to the time embedding.
        width = 4 * config.channels[0]
        self.unet.class_embedding = nn.Sequential(
            nn.Linear(condition_size, width), nn.SiLU(), nn.Linear(width, width)
        )

    def recompute(self, on: bool) -> None:
        """Whether the backward pass computes what its blocks hold again, rather than keep it.

        Residual and attention blocks then keep their inputs alone (Chen et al. 2016): about a
        third of the memory, for one more forward pass per step. Outputs and gradients are the
        same.
        """
        from monai.networks.blocks import SpatialAttentionBlock
        from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock

        for block in self.unet.modules():
            if isinstance(block, DiffusionUNetResnetBlock | SpatialAttentionBlock):
                # On the instance, so that neither classes nor names of parameters change.
                block.__dict__.pop("forward", None)
                if on:
                    block.forward = partial(_again, block.forward)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x (B, C, S...), t (B,) in [0, 1], condition (B, E) -> (B, out_channels, S...)."""
        packed = space_to_depth(x, self.patch)
        out = self.unet(packed, timesteps=1000.0 * t, class_labels=condition)
        return depth_to_space(cast(Tensor, out), self.patch)


def _again(forward: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    # Nothing in these blocks is random.
    out: Tensor = checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)
    return out
