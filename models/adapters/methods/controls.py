"""Baselines that train chosen tensors as they are: none, biases, norms, attention, everything."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from models.adapters.change import Change, Offset
from models.adapters.method import Method, Tensors
from models.adapters.targets import Target


class ChosenTensors(Method):
    """Trains some tensors as they are; they are stored as their difference from the base's."""

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, float]] = (1e-4, 1e-2)

    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        return {t: Offset(tensor) for t, tensor in tensors.items() if self.trains(t)}

    @staticmethod
    @abstractmethod
    def trains(target: Target) -> bool:
        """Returns whether a tensor is trained."""


class _FewNumbers(ChosenTensors):
    """Tensors of one axis need a higher rate than whole weights."""

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, float]] = (1e-3, 1e-1)


@dataclass(frozen=True)
class NoAdapter(ChosenTensors):
    """Trains nothing of the network."""

    name: ClassVar[str] = "none"
    trains_something: ClassVar[bool] = False

    @staticmethod
    def trains(target: Target) -> bool:
        return False


@dataclass(frozen=True)
class BitFit(_FewNumbers):
    """All biases (Ben Zaken et al. 2022)."""

    name: ClassVar[str] = "bitfit"

    @staticmethod
    def trains(target: Target) -> bool:
        return target.tensor == "bias"


@dataclass(frozen=True)
class Norm(_FewNumbers):
    """Weights and biases of the norms."""

    name: ClassVar[str] = "norm"

    @staticmethod
    def trains(target: Target) -> bool:
        return target.kind == "norm"


@dataclass(frozen=True)
class Attention(ChosenTensors):
    """Everything in the attention blocks."""

    name: ClassVar[str] = "attention"

    @staticmethod
    def trains(target: Target) -> bool:
        return "attention" in target.block


@dataclass(frozen=True)
class Full(ChosenTensors):
    """All tensors of the network."""

    name: ClassVar[str] = "full"

    @staticmethod
    def trains(target: Target) -> bool:
        return True
