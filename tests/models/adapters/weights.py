"""The tensors that a network with adapters computes with, and random changes of them."""

from __future__ import annotations

import torch

from models.adapters.adapter import Adapter
from models.adapters.targets import Target, all_targets
from models.diffusion.network import PatchUNet


def disturb(adapter: Adapter, seed: int = 1) -> None:
    """Random values in place of trained ones."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))


def weights(network: PatchUNet) -> dict[str, torch.Tensor]:
    """The tensors that a network computes with, adapters included."""
    return {t.name: current(network, t) for t in all_targets(network)}


def current(network: PatchUNet, target: Target) -> torch.Tensor:
    found: torch.Tensor = getattr(network.get_submodule(target.module), target.tensor)
    return found.detach().clone()


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)
