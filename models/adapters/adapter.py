"""An adapter: the changes that a method makes to a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import torch
from torch import nn

from contracts.errors import UserError
from models.adapters import change
from models.adapters.change import Change
from models.adapters.method import Method
from models.adapters.targets import Target, in_blocks
from models.diffusion.network import PatchUNet

EVERYWHERE = ("*",)
Checksum = tuple[float, float]


class Adapter:
    """The changes of one method to a network, which it leaves frozen and bit-equal.

    Several adapters may change one network; their changes add up.

    Parameters
    ----------
    network : that is changed, from now on.
    method : makes the changes, which are zero at first.
    blocks : patterns of the blocks that may be changed, see `models.adapters.targets.in_blocks`.
    seed : of what the method draws.
    name : tells the adapters of a network apart; without dots.

    Raises
    ------
    UserError : if the network was never trained, the name is taken, a pattern matches no block, or
        the method trains nothing in the blocks (a method without any targets, such as ``none``,
        may).
    """

    def __init__(
        self,
        network: PatchUNet,
        method: Method,
        blocks: Sequence[str] = EVERYWHERE,
        seed: int = 0,
        name: str = "adapter",
    ) -> None:
        self.network = network
        self.method = method
        self.blocks = tuple(blocks)
        self.name = name
        self._unmerged: dict[Target, tuple[torch.Tensor, float]] = {}
        self.changes = new_changes(network, method, blocks, seed)
        network.requires_grad_(False)
        device = next(network.parameters()).device
        for target, one in self.changes.items():
            change.add(network.get_submodule(target.module), target.tensor, name, one.to(device))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the adapter's own parameters by target and name, each once, in a fixed order."""
        return named_parameters(self.changes)

    def parameters(self) -> list[nn.Parameter]:
        """Returns the adapter's own parameters, in a fixed order."""
        return list(self.named_parameters().values())

    def rate_factors(self) -> list[float]:
        """Returns the factor on the learning rate of each of `parameters`."""
        by_name = {target.name: self.method.rate_factor(target) for target in self.changes}
        return [
            next(f for target, f in by_name.items() if name.startswith(f"{target}."))
            for name in self.named_parameters()
        ]

    @property
    def count(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def strength(self) -> float:
        """Factor on the changes: 0 is the base, 1 what was trained; others lie between or beyond.

        It multiplies the change of each weight, not the trained parameters.
        """
        for _, changed in self._changed():
            return changed.strengths[self.name]
        return 1.0

    @strength.setter
    def strength(self, value: float) -> None:
        for _, changed in self._changed():
            changed.strengths[self.name] = value

    def merge(self) -> None:
        """Makes the changes, at their strength, part of the network, and takes the adapter out."""
        kept = {
            target: (target.of_base(self.network).detach().clone(), changed.strengths[self.name])
            for target, changed in self._changed()
        }
        self._remove(keep_change=True)
        self._unmerged = kept

    def unmerge(self) -> None:
        """Takes a merged adapter out of the tensors again and puts it beside them, as before.

        The base comes back bit for bit.

        Raises
        ------
        RuntimeError : if the adapter is not merged, or the tensors were changed since.
        """
        if self.changes and not self._unmerged:
            raise RuntimeError(f"the adapter {self.name} is not merged")
        with torch.no_grad():
            for target, (base, strength) in self._unmerged.items():
                merged = base + strength * self.changes[target](base)
                if not torch.equal(target.of_base(self.network), merged):
                    raise RuntimeError(
                        f"{target.name} was changed after {self.name} was merged: adapters are "
                        "unmerged in the opposite order"
                    )
            for target, (base, _) in self._unmerged.items():
                target.of_base(self.network).copy_(base)
        for target, (_, strength) in self._unmerged.items():
            module = self.network.get_submodule(target.module)
            change.add(module, target.tensor, self.name, self.changes[target])
            found = change.changed_tensor(module, target.tensor)
            assert found is not None
            found.strengths[self.name] = strength
        self._unmerged = {}

    def detach(self) -> None:
        """Takes the adapter out; the network is as before, bit for bit."""
        self._remove(keep_change=False)

    def checksums(self) -> dict[str, Checksum]:
        """Returns the `checksum` of each change at strength 1, by target."""
        with torch.no_grad():
            return {
                target.name: checksum(one(target.of_base(self.network)))
                for target, one in self.changes.items()
            }

    def _changed(self) -> Iterator[tuple[Target, change.ChangedTensor]]:
        for target in self.changes:
            module = self.network.get_submodule(target.module)
            changed = change.changed_tensor(module, target.tensor)
            if changed is None or self.name not in changed.changes:
                raise RuntimeError(f"the adapter {self.name} was taken out of its network")
            yield target, changed

    def _remove(self, keep_change: bool) -> None:
        for target, _ in list(self._changed()):
            module = self.network.get_submodule(target.module)
            change.remove(module, target.tensor, self.name, keep_change)


def new_changes(
    network: PatchUNet, method: Method, blocks: Sequence[str], seed: int = 0
) -> dict[Target, Change]:
    """Returns the changes of a method to a network, zero at first, without putting them into it.

    Raises
    ------
    UserError : as `Adapter`.
    """
    _require_trained(network, method.name)
    generator = torch.Generator().manual_seed(seed)
    tensors = {target: target.of_base(network) for target in in_blocks(network, blocks)}
    changes = method.changes(tensors, generator)
    if not changes and method.trains_something:
        raise UserError(
            f"{method.name} changes nothing in the blocks {', '.join(blocks)}: choose others; "
            "`python -m training.blocks` lists what it changes"
        )
    return changes


def named_parameters(changes: Mapping[Target, Change]) -> dict[str, nn.Parameter]:
    """Returns the parameters of changes by target and name, each once, in a fixed order."""
    found: dict[str, nn.Parameter] = {}
    known: set[int] = set()
    for target, one in changes.items():
        for name, parameter in one.named_parameters():
            if id(parameter) not in known:
                known.add(id(parameter))
                found[f"{target.name}.{name}"] = parameter
    return found


def checksum(change: torch.Tensor) -> Checksum:
    """Returns a number that depends on all values of a change, and the size of the change.

    They are the sum of the values weighted by a cosine, and the root of their sum of squares.
    """
    values = change.detach().flatten().cpu().double()
    return float(values @ _cosine(values.numel())), float(values.norm())


def _require_trained(network: PatchUNet, method: str) -> None:
    outputs = [p for p in network.unet.out.parameters() if p.ndim > 1]
    if not any(bool(p.any()) for p in outputs):
        raise UserError(
            f"{method} adapts a trained generator, and this one's network still has its initial "
            "weights: train the base first"
        )


@lru_cache(maxsize=32)
def _cosine(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float64).mul_(0.7).cos_()
