"""Low-rank adaptation of convolutions and linear layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from contracts.errors import UserError
from models.adapters.adapter import Adapter, Targets, select_layers
from models.diffusion.network import PatchUNet


class _LowRank(nn.Module):
    """W -> W + B A, with W seen as a (c_out, c_in * k...) matrix.

    For a convolution this is a k-sized one to `rank` channels followed by a 1-sized one: the
    form that HF peft gives LoRA on convolutions. Adding it in weight space evaluates one
    convolution instead of three and keeps no activations of its own.
    """

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows = weight.shape[0]
        columns = weight.numel() // rows
        bound = math.sqrt(3.0 / columns)  # unit-variance output for unit-variance input
        self.down = nn.Parameter(
            (2 * torch.rand(rank, columns, generator=generator) - 1).mul_(bound)
        )
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view_as(weight)


class LoRA(Adapter):
    """LoRA (Hu et al. 2021, eq. 3) with scale alpha / r fixed to 1.

    Parameters
    ----------
    rank : r; layers with fewer channels get a rank of theirs.
    targets : see `models.adapters.adapter.select_layers`.

    Raises
    ------
    UserError : if rank < 1.
    """

    method = "lora"

    def __init__(self, rank: int = 4, targets: Targets = "all") -> None:
        super().__init__()
        if rank < 1:
            raise UserError(f"LoRA rank must be at least 1, got {rank}")
        self.rank = rank
        self.targets = targets

    def parametrisation(self, weight: Tensor, generator: torch.Generator) -> nn.Module:
        rank = min(self.rank, weight.shape[0], weight.numel() // weight.shape[0])
        return _LowRank(weight, rank, generator)

    def select(self, network: PatchUNet) -> Iterator[tuple[str, nn.Module]]:
        return select_layers(network, self.targets)

    def settings(self) -> dict[str, Any]:
        return {"rank": self.rank, "targets": self.targets}
