"""Low-rank adaptation of convolutions and linear layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from contracts.errors import UserError
from models.adapters.change import Change
from models.adapters.method import Method, Tensors, matrix, weights
from models.adapters.targets import Target


@dataclass(frozen=True)
class LoRA(Method):
    """LoRA (Hu et al. 2021, eq. 3): W -> W + (alpha / r) B A.

    W is seen as a (c_out, c_in * k...) matrix. Without `tucker`, a convolution thus gets a k-sized
    one to r channels followed by a 1-sized one.

    Parameters
    ----------
    rank : r; a smaller layer gets a smaller one.
    alpha : default: r, which makes the scale 1.
    rank_stabilised : divide alpha by the square root of r instead (rsLoRA, Kalajdzievski 2023).
    tucker : for kernels larger than one voxel, a 1-sized convolution to r channels, a k-sized one
        among them and a 1-sized one back (LoCon's Tucker form, Yeh et al. 2023): a k^3 kernel of c
        channels then takes r (2 c + r k^3) parameters instead of r c (1 + k^3).

    Raises
    ------
    UserError : if rank < 1 or alpha <= 0.
    """

    name: ClassVar[str] = "lora"
    learning_rate: ClassVar[float] = 3e-3
    learning_rates: ClassVar[tuple[float, float]] = (3e-4, 3e-2)
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"rank": (1, 2, 4, 8, 16)}

    rank: int = 4
    alpha: float | None = None
    rank_stabilised: bool = False
    tucker: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"{self.name}: rank must be at least 1, got {self.rank}")
        if self.alpha is not None and self.alpha <= 0:
            raise UserError(f"{self.name}: alpha must be above 0, got {self.alpha}")

    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        return {t: self.low_rank(tensors[t], generator) for t in weights(tensors)}

    def low_rank(self, weight: Tensor, generator: torch.Generator) -> Change:
        """Returns the low-rank change of one weight."""
        rank = min(self.rank, *matrix(weight))
        alpha = rank if self.alpha is None else self.alpha
        scale = alpha / (math.sqrt(rank) if self.rank_stabilised else rank)
        if self.tucker and weight.shape[2:].numel() > 1:
            return _Tucker(weight, min(rank, weight.shape[1]), scale, generator)
        return _LowRank(weight, rank, scale, generator)


class _LowRank(Change):
    """scale * B A."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = matrix(weight)
        self.scale = scale
        self.down = nn.Parameter(_uniform((rank, columns), columns, generator))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, base: Tensor) -> Tensor:
        return self.scale * (self.up @ self.down).view_as(base)


class _Tucker(Change):
    """scale * B (G x A), with a k-sized kernel G among r channels."""

    def __init__(self, weight: Tensor, rank: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns, *kernel = weight.shape
        self.scale = scale
        self.down = nn.Parameter(_uniform((rank, columns), columns, generator))
        inputs = rank * math.prod(kernel)
        self.core = nn.Parameter(_uniform((rank, rank, *kernel), inputs, generator))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, base: Tensor) -> Tensor:
        core = torch.einsum("or,rs...,si->oi...", self.up, self.core, self.down)
        return self.scale * core


def _uniform(shape: tuple[int, ...], inputs: int, generator: torch.Generator) -> Tensor:
    """Returns weights that give outputs of variance 1 for inputs of variance 1."""
    bound = math.sqrt(3.0 / inputs)
    return (2 * torch.rand(shape, generator=generator) - 1).mul_(bound)
