"""The interface of every adapter, and the file that it is kept in."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from contracts.errors import UserError
from models.diffusion.network import PatchUNet

FORMAT = 1
ADAPTER_FILE = "adapter.safetensors"
Targets = Literal["attention", "conv", "all"]

_ATTENTION = ("to_q", "to_k", "to_v", "out_proj")


def select_layers(network: nn.Module, targets: Targets) -> Iterator[tuple[str, nn.Module]]:
    """Yields the names and modules of the layers to adapt, in a fixed order.

    ``attention``: the projections of the attention layers; ``conv``: all convolutions;
    ``all``: all convolutions and linear layers.
    """
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    for name, module in network.named_modules():
        conv, linear = isinstance(module, convolutions), isinstance(module, nn.Linear)
        attention = linear and name.split(".")[-1] in _ATTENTION
        if (
            (targets == "all" and (conv or linear))
            or (targets == "conv" and conv)
            or (targets == "attention" and attention)
        ):
            yield name, module


class Adapter(ABC):
    """A change to the weights of a generator's network that starts as no change at all.

    A method gives a parametrisation of each target module's weight (see
    `torch.nn.utils.parametrize`): the base weight stays beside it, frozen and bit-equal, and one
    layer is evaluated as before, so that no activations are added.
    """

    method: str

    def __init__(self) -> None:
        self._network: PatchUNet | None = None
        self._names: list[str] = []

    @abstractmethod
    def parametrisation(self, weight: Tensor, generator: torch.Generator) -> nn.Module:
        """Returns a module that maps a target's weight to the changed weight; at first the same."""

    @abstractmethod
    def select(self, network: PatchUNet) -> Iterator[tuple[str, nn.Module]]:
        """Yields the modules to change, by name."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Returns what makes the same adapter again, as plain values."""

    def inject(self, network: PatchUNet, seed: int = 0) -> None:
        """Puts the adapter into a network and freezes everything else.

        Raises
        ------
        UserError : if the network was never trained (its last layer is still zero: an adapter
            of noise), or nothing matches the targets.
        """
        outputs = [p for p in network.unet.out.parameters() if p.ndim > 1]
        if not any(bool(p.any()) for p in outputs):
            raise UserError(
                f"{self.method} adapts a trained generator, and this one's network still has its "
                "initial weights: train the base first"
            )
        network.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        chosen = list(self.select(network))
        if not chosen:
            raise UserError(f"{self.method}: no layer of the network matches {self.settings()}")
        for name, module in chosen:
            weight = module.get_parameter("weight")
            parametrize.register_parametrization(
                module, "weight", self.parametrisation(weight.detach(), generator)
            )
            self._names.append(name)
        self._network = network

    def trainable(self) -> list[nn.Parameter]:
        """Returns the adapter's own parameters, in a fixed order."""
        return list(self.named_parameters().values())

    def merge(self) -> None:
        """Writes the change into the weights and takes the adapter out."""
        self._remove(keep_change=True)

    def discard(self) -> None:
        """Takes the adapter out; the network is the base again, bit for bit."""
        self._remove(keep_change=False)

    def save(self, path: Path, base: str, gain: NDArray[np.float32]) -> None:
        """Writes one safetensors file.

        Parameters
        ----------
        base : digest of the generator that the adapter fits.
        gain : the adapted site's `Prior.site_gain`.
        """
        from safetensors.torch import save_file

        tensors = {
            name: p.detach().cpu().contiguous() for name, p in self.named_parameters().items()
        }
        tensors["prior.site_gain"] = torch.from_numpy(gain)
        description = {
            "format": FORMAT,
            "method": self.method,
            "base": base,
            "settings": self.settings(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"adapter": json.dumps(description)})

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the adapter's own parameters by layer and name."""
        if self._network is None:
            raise RuntimeError("inject the adapter into a network first")
        found = {}
        for name in self._names:
            module = self._network.get_submodule(name)
            (inner,) = module.parametrizations.weight  # type: ignore[union-attr, misc]
            found.update({f"{name}.{key}": p for key, p in inner.named_parameters()})
        return found

    def _remove(self, keep_change: bool) -> None:
        if self._network is None:
            raise RuntimeError("inject the adapter into a network first")
        for name in self._names:
            module = self._network.get_submodule(name)
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=keep_change)
        self._network, self._names = None, []
