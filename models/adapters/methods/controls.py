"""Plain choices of trained tensors, beside which the other methods are judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from models.adapters.change import Change, Offset
from models.adapters.method import Method, Tensors
from models.adapters.targets import Target


class _Plain(Method):
    """Trains some tensors as they are; they are stored as their difference from the base's."""

    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        return {t: Offset(tensor) for t, tensor in tensors.items() if self.trains(t)}

    def trains(self, target: Target) -> bool:
        """Returns whether a tensor is trained."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoAdapter(_Plain):
    """Trains nothing: the site gain alone."""

    name: ClassVar[str] = "none"
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 1e-3)
    trains_something: ClassVar[bool] = False

    def trains(self, target: Target) -> bool:
        return False


@dataclass(frozen=True)
class BitFit(_Plain):
    """All biases (Ben Zaken et al. 2022)."""

    name: ClassVar[str] = "bitfit"
    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 1e-1)

    def trains(self, target: Target) -> bool:
        return target.tensor == "bias"


@dataclass(frozen=True)
class Norm(_Plain):
    """Weights and biases of the norms."""

    name: ClassVar[str] = "norm"
    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 1e-1)

    def trains(self, target: Target) -> bool:
        return target.kind == "norm"


@dataclass(frozen=True)
class Attention(_Plain):
    """Everything in the attention blocks."""

    name: ClassVar[str] = "attention"
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, float]] = (1e-4, 1e-2)

    def trains(self, target: Target) -> bool:
        return "attention" in target.block


@dataclass(frozen=True)
class Full(_Plain):
    """All tensors of the network."""

    name: ClassVar[str] = "full"
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, float]] = (1e-4, 1e-2)

    def trains(self, target: Target) -> bool:
        return True
