"""Activation checkpointing: what is cheap to compute is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def switch(unet: nn.Module, on: bool) -> None:
    """Sets whether a `DiffusionModelUNet` computes what is cheap again instead of keeping it.

    Without it, torch keeps three maps of features per convolution of a residual block: the inputs
    of the norm, of the SiLU and of the convolution. With it, the first alone: norms, SiLU and
    upsampling are computed again; convolutions, attention and what adapters make of weights are
    not. Of other convolutions, torch keeps the input even where the weight is frozen, whose
    gradient alone would need it; with this, only its size. Outputs and gradients are the same.

    Parameters
    ----------
    unet : of MONAI, without up- or downsampling inside of residual blocks.
    """
    from monai.networks.nets.diffusion_model_unet import (
        DiffusionUnetDownsample,
        DiffusionUNetResnetBlock,
        WrappedUpsample,
    )

    # Methods are replaced on the instances, so that neither MONAI's classes nor the names of
    # parameters change.
    for module in unet.modules():
        forward: Callable[..., Tensor] | None = None
        if isinstance(module, DiffusionUNetResnetBlock):
            forward = _residual_block
        elif isinstance(module, WrappedUpsample) or module is unet.out:
            forward = _sequence
        elif isinstance(module, DiffusionUnetDownsample):
            forward = _downsampling
        elif module is unet.conv_in:
            forward = _alone
        if forward is not None:
            module.__dict__.pop("forward", None)
            if on:
                module.forward = partial(_in_training, module.forward, partial(forward, module))


def _in_training(plain: Callable[..., Tensor], lean: Callable[..., Tensor], *x: Tensor) -> Tensor:
    return lean(*x) if torch.is_grad_enabled() else plain(*x)


def _residual_block(block: Any, x: Tensor, emb: Tensor) -> Tensor:
    """Returns what MONAI's `DiffusionUNetResnetBlock.forward` does."""
    h = _convolved(block.conv1, (block.norm1, block.nonlinearity), x)
    time = block.time_emb_proj(block.nonlinearity(emb))
    h = h + time.view(*time.shape, *[1] * (x.ndim - 2))
    h = _convolved(block.conv2, (block.norm2, block.nonlinearity), h)
    return cast(Tensor, block.skip_connection(x) + h)


def _sequence(layers: nn.Sequential, x: Tensor, _: Tensor | None = None) -> Tensor:
    """Returns what a sequence of cheap layers and a convolution does, on whatever embedding."""
    *before, convolution = layers
    return _convolved(convolution, before, x)


def _downsampling(block: Any, x: Tensor, _: Tensor) -> Tensor:
    """Returns what MONAI's `DiffusionUnetDownsample.forward` does."""
    return _alone(block.op, x)


def _convolved(convolution: Any, before: Any, x: Tensor) -> Tensor:
    """Returns convolution(before(x)); of it, the backward pass keeps x alone."""
    layer = convolution.conv

    def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        for cheap in before:
            x = cheap(x)
        return cast(Tensor, layer._conv_forward(x, weight, bias))

    # The checkpoint stops computing again at the last tensor that the backward pass needs, which is
    # the input of the convolution. The weight is given from outside, so that what adapters make of
    # it is not computed again. Nothing here is random: no random state has to be kept.
    out: Tensor = checkpoint(
        forward, x, layer.weight, layer.bias, use_reentrant=False, preserve_rng_state=False
    )
    return out


def _alone(convolution: Any, x: Tensor) -> Tensor:
    """Returns convolution(x); of x, the backward pass keeps the size alone if it needs no more."""
    layer = convolution.conv
    weight, bias = layer.weight, layer.bias
    if weight.requires_grad:
        return cast(Tensor, layer._conv_forward(x, weight, bias))

    def pack(kept: Tensor) -> Tensor | Callable[[], Tensor]:
        # Autocast makes copies of input and weight, hence their shapes tell them apart.
        if kept.shape == weight.shape:
            return kept
        return partial(_blank, kept.shape, kept.dtype, kept.device)

    with torch.autograd.graph.saved_tensors_hooks(pack, _unpack):
        return cast(Tensor, layer._conv_forward(x, weight, bias))


def _blank(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns a tensor whose values are of no account; it takes the memory of one."""
    return torch.zeros((), dtype=dtype, device=device).expand(shape)


def _unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
    return kept if isinstance(kept, Tensor) else kept()
