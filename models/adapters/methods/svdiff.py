"""Fine-tuning of singular values."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from models.adapters.change import Change, Offset
from models.adapters.method import Method, Tensors, matrix
from models.adapters.targets import Target

# Singular values below this share of the largest count as zero.
_ZERO_SHARE = 1e-6
# Decompositions that are kept: those of a few networks.
_KEPT = 512


@dataclass(frozen=True)
class SVDiff(Method):
    """SV-DIFF (Han et al. 2023, eq. 3): W = U diag(s) V' -> U diag(relu(s + d)) V'.

    W is seen as a (c_out, c_in * k...) matrix, and d, one number per singular value, is trained.
    The weights of norms are vectors and get an additive one, trained at a thousandth of the rate,
    as the authors have it; biases stay. Where s is zero, U and V' have no sign of their own and d
    may have either.
    """

    name: ClassVar[str] = "svdiff"
    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 1e-1)

    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        return {
            target: SingularValues(tensor) if tensor.ndim > 1 else Offset(tensor)
            for target, tensor in tensors.items()
            if target.tensor == "weight"
        }

    def rate_factor(self, target: Target) -> float:
        return 1e-3 if target.kind == "norm" else 1.0


class SingularValues(Change):
    """U (diag(relu(s + d)) - diag(s)) V', zero where d is.

    What the decomposition loses to rounding stays in the base's own tensor.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        left, values, right = decomposed(weight)
        # They follow from the base's weights and are not stored with the adapter.
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.shift = nn.Parameter(torch.zeros_like(values))

    def forward(self, base: Tensor) -> Tensor:
        s = self.values
        # The gradient of `clamp` is 1 at its bound, that of `relu` 0: it would never leave it.
        kept = torch.where(s > _ZERO_SHARE * s.max(), (s + self.shift).clamp(min=0), self.shift)
        return ((self.left * (kept - s)) @ self.right).view_as(base)


_decompositions: OrderedDict[bytes, tuple[Tensor, Tensor, Tensor]] = OrderedDict()


def decomposed(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns U (c_out, n), s (n,) and V' (n, c_in * k...), computed in float64 and kept."""
    flat = weight.detach().cpu().reshape(matrix(weight)).contiguous()
    key = hashlib.sha256(repr(tuple(flat.shape)).encode() + flat.numpy().tobytes()).digest()
    if key not in _decompositions:
        parts = torch.linalg.svd(flat.double(), full_matrices=False)
        left, values, right = (part.to(weight.dtype).contiguous() for part in parts)
        zero = values <= _ZERO_SHARE * values.max()
        _decompositions[key] = left, values.masked_fill(zero, 0), right
        while len(_decompositions) > _KEPT:
            _decompositions.popitem(last=False)
    _decompositions.move_to_end(key)
    left, values, right = (part.to(weight.device) for part in _decompositions[key])
    return left, values, right
