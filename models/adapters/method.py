"""What a method of parameter-efficient fine-tuning is: settings, and the changes they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

import torch
from torch import Tensor

from contracts.errors import UserError
from contracts.params import parse
from models.adapters.change import Change
from models.adapters.targets import Target

# The base's tensors by target.
Tensors = Mapping[Target, Tensor]


@dataclass(frozen=True)
class Method(ABC):
    """A way to change a network. Its fields are its settings.

    A new method is a new file in `models.adapters.methods` with a subclass.

    Attributes
    ----------
    name : in params.yaml, on the command line and in files.
    learning_rate : that suits the method, found by measurement.
    learning_rates : range for a search.
    choices : values for a search, by name of the setting.
    trains_something : whether it changes any target at all.
    """

    name: ClassVar[str]
    learning_rate: ClassVar[float]
    learning_rates: ClassVar[tuple[float, float]]
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    trains_something: ClassVar[bool] = True

    @abstractmethod
    def changes(self, tensors: Tensors, generator: torch.Generator) -> dict[Target, Change]:
        """Returns the changes of those targets that the method changes, in the same order.

        Parameters
        ----------
        tensors : all targets in the chosen blocks.
        generator : draws what is random at first.
        """

    def rate_factor(self, target: Target) -> float:
        """Returns the factor on the learning rate of a target's parameters."""
        return 1.0

    def settings(self) -> dict[str, Any]:
        """Returns the settings as plain values."""
        return asdict(self)


@cache
def methods() -> dict[str, type[Method]]:
    """Returns the methods by name, sorted."""
    import models.adapters.methods as package

    found: dict[str, type[Method]] = {}
    for module in iter_modules(package.__path__):
        content = import_module(f"{package.__name__}.{module.name}")
        for value in vars(content).values():
            is_method = isinstance(value, type) and issubclass(value, Method)
            if is_method and value.__module__ == content.__name__ and "name" in vars(value):
                found[value.name] = value
    return dict(sorted(found.items()))


def method(name: str, settings: Mapping[str, Any]) -> Method:
    """Returns a method with settings.

    Raises
    ------
    UserError : if there is no such method or setting, or a value is not possible.
    """
    if name not in methods():
        raise UserError(f"unknown method '{name}': expected one of {', '.join(methods())}")
    kind = methods()[name]
    known = [field.name for field in fields(kind)]
    unknown = [key for key in settings if key not in known]
    if unknown:
        expected = f"expected {', '.join(known)}" if known else "it has none"
        raise UserError(f"{name} has no setting {', '.join(unknown)}: {expected}")
    return parse(kind, dict(settings), name)


def matrix(tensor: Tensor) -> tuple[int, int]:
    """Returns the size of a weight as a matrix, (c_out, c_in * k...)."""
    rows = tensor.shape[0]
    return rows, tensor.numel() // rows


def weights(tensors: Tensors) -> Sequence[Target]:
    """Returns the weights of convolutions and linear layers among the targets."""
    return [t for t in tensors if t.tensor == "weight" and t.kind in ("convolution", "linear")]
