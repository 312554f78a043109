"""A trainable change of one tensor, and the parametrisation that adds changes to it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Change(nn.Module, ABC):
    """What an adapter adds to one tensor of the base; zero before it is trained."""

    @abstractmethod
    def forward(self, base: Tensor) -> Tensor:
        """Returns what is added to a tensor of the base, in its shape."""


class ChangedTensor(nn.Module):
    """The parametrisation W -> W + sum_k strength_k change_k(W) of a tensor (`torch.nn.utils`).

    The base tensor W stays beside it, frozen and bit-equal. The layer is evaluated once, with the
    changed tensor, so that adapters add no activations. Every change sees W itself, and not what
    another one made of it, so that the order of adapters does not matter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changes = nn.ModuleDict()
        self.strengths: dict[str, float] = {}

    def forward(self, base: Tensor) -> Tensor:
        changed = base
        for adapter, change in self.changes.items():
            strength = self.strengths[adapter]
            if strength == 1:
                changed = changed + change(base)
            elif strength != 0:
                changed = changed + strength * change(base)
        return changed


def names(network: nn.Module) -> set[str]:
    """Returns the names of the adapters that change a tensor of a network."""
    changed = (module for module in network.modules() if isinstance(module, ChangedTensor))
    return {name for one in changed for name in one.changes}


def add(
    module: nn.Module, tensor: str, adapter: str, change: Change, strength: float = 1.0
) -> None:
    """Adds the change of an adapter to a tensor of a module."""
    changed = changed_tensor(module, tensor)
    if changed is None:
        changed = ChangedTensor()
        parametrize.register_parametrization(module, tensor, changed)
    changed.changes[adapter] = change
    changed.strengths[adapter] = strength


def remove(module: nn.Module, tensor: str, adapter: str, keep_change: bool) -> None:
    """Takes the change of an adapter out; the last one also takes the parametrisation out.

    Parameters
    ----------
    keep_change : whether the change, at its strength, becomes part of the base tensor.
    """
    changed = changed_tensor(module, tensor)
    if changed is None or adapter not in changed.changes:
        raise KeyError(f"no change {adapter} of {tensor}")
    if keep_change:
        base = module.parametrizations[tensor].original  # type: ignore[index, union-attr]
        with torch.no_grad():
            base.add_(changed.strengths[adapter] * changed.changes[adapter](base))
    del changed.changes[adapter], changed.strengths[adapter]
    if not changed.changes:
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=False)


def changed_tensor(module: nn.Module, tensor: str) -> ChangedTensor | None:
    """Returns the parametrisation of a tensor, or None if no adapter changes it."""
    if not parametrize.is_parametrized(module, tensor):
        return None
    (found,) = module.parametrizations[tensor]  # type: ignore[index]
    assert isinstance(found, ChangedTensor)
    return found


class Offset(Change):
    """W -> W + d, with a trainable d of W's shape."""

    def __init__(self, base: Tensor) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros_like(base))

    def forward(self, base: Tensor) -> Tensor:
        return self.offset
