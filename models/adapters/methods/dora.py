"""Weight-decomposed low-rank adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.adapters.change import Change
from models.adapters.method import Tensors, weights
from models.adapters.methods.lora import LoRA
from models.adapters.targets import Target


@dataclass(frozen=True)
class DoRA(LoRA):
    """DoRA (Liu et al. 2024, eq. 5): W -> m (W + dW) / |W + dW|, with a low-rank dW.

    m is trained, one magnitude per output channel, and starts at |W|. The norm in the
    denominator is not differentiated (section 4.3 of the paper), which saves memory.

    Parameters
    ----------
    rank, alpha, rank_stabilised, tucker : of dW, see `LoRA`.
    """

    name: ClassVar[str] = "dora"

    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        return {
            t: _Decomposed(tensors[t], self.low_rank(tensors[t], generator))
            for t in weights(tensors)
        }


class _Decomposed(Change):
    """m (W + dW) / |W + dW| - W. The magnitude is stored as its change."""

    def __init__(self, weight: Tensor, direction: Change) -> None:
        super().__init__()
        self.direction = direction
        self.magnitude = nn.Parameter(torch.zeros(len(weight)))

    def forward(self, base: Tensor) -> Tensor:
        changed = base + self.direction(base)
        before, after = _norms(base), _norms(changed.detach())
        factor = (before + self.magnitude) / after
        scaled: Tensor = factor.view(-1, *[1] * (base.ndim - 1)) * changed
        return scaled - base


def _norms(weight: Tensor) -> Tensor:
    """Returns the norm of the weights of each output channel; a channel of zeros counts as 1."""
    norms = weight.flatten(1).norm(dim=1)
    return torch.where(norms > 0, norms, torch.ones_like(norms))
