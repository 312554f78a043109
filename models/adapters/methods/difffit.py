"""Fine-tuning of biases, norms, condition embeddings and scales of residual branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.adapters.change import Change, Offset
from models.adapters.method import Method, Tensors
from models.adapters.targets import Target

# The last layer of a residual branch, in residual and in attention blocks.
_LAST_LAYERS = ("conv2.conv", "out_proj")
_EMBEDDING = "condition_embed"


@dataclass(frozen=True)
class DiffFit(Method):
    """DiffFit (Xie et al. 2023, section 3.2): biases, norms, condition embedding, and scales.

    The output of each residual branch is multiplied by a trained scale per channel, 1 at first.
    Since the last layer of a branch is linear, the scale is part of its weight and bias.
    """

    name: ClassVar[str] = "difffit"
    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 1e-1)

    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        scales: dict[str, nn.Parameter] = {}
        found: dict[Target, Change] = {}
        for target, tensor in tensors.items():
            if target.module.endswith(_LAST_LAYERS):
                scale = scales.setdefault(target.module, nn.Parameter(torch.zeros(len(tensor))))
                found[target] = _Scaled(scale, tensor if target.tensor == "bias" else None)
            elif target.tensor == "bias" or target.kind == "norm" or target.block == _EMBEDDING:
                found[target] = Offset(tensor)
        return found


class _Scaled(Change):
    """W -> (1 + g) W + d, with d for a bias only; g is shared by weight and bias."""

    def __init__(self, scale: nn.Parameter, bias: Tensor | None) -> None:
        super().__init__()
        self.scale = scale
        self.offset = None if bias is None else nn.Parameter(torch.zeros_like(bias))

    def forward(self, base: Tensor) -> Tensor:
        change = self.scale.view(-1, *[1] * (base.ndim - 1)) * base
        return change if self.offset is None else change + self.offset
