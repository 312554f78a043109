"""An adapter: the changes that a method makes to a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from contracts.errors import UserError
from models.adapters import change
from models.adapters.change import Change
from models.adapters.method import Method
from models.adapters.targets import Target, in_blocks
from models.diffusion.network import ConditionedUNet

EVERYWHERE = ("*",)


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
        network: ConditionedUNet,
        method: Method,
        blocks: Sequence[str] = EVERYWHERE,
        seed: int = 0,
        name: str = "adapter",
    ) -> None:
        _require_trained(network, method.name)
        if change.names(network) & {name}:
            raise UserError(
                f"the network has an adapter {name} already: give this one another name"
            )
        self.network = network
        self.method = method
        self.blocks = tuple(blocks)
        self.name = name
        # While merged: the base's tensors, and the strength at which the changes are in them.
        self._merged: dict[Target, tuple[torch.Tensor, float]] = {}
        targets = in_blocks(network, blocks)
        generator = torch.Generator().manual_seed(seed)
        tensors = {target: target.of_base(network) for target in targets}
        self.changes: dict[Target, Change] = method.changes(tensors, generator)
        if not self.changes and method.trains_something:
            raise UserError(
                f"{method.name} changes nothing in the blocks {', '.join(self.blocks)}: choose "
                "others; `python -m training.blocks` lists what it changes"
            )
        network.requires_grad_(False)
        device = next(network.parameters()).device
        for target, one in self.changes.items():
            change.add(network.get_submodule(target.module), target.tensor, name, one.to(device))

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the adapter's own parameters by target and name, each once, in a fixed order."""
        found: dict[str, nn.Parameter] = {}
        known: set[int] = set()
        for target, one in self.changes.items():
            for name, parameter in one.named_parameters():
                if id(parameter) not in known:
                    known.add(id(parameter))
                    found[f"{target.name}.{name}"] = parameter
        return found

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
        self._merged = kept

    def unmerge(self) -> None:
        """Puts a merged adapter beside the tensors again; the base comes back bit for bit.

        Raises
        ------
        RuntimeError : if the adapter is not merged, or the tensors were changed since.
        """
        if self.changes and not self._merged:
            raise RuntimeError(f"the adapter {self.name} is not merged")
        with torch.no_grad():
            for target, (base, strength) in self._merged.items():
                merged = base + strength * self.changes[target](base)
                if not torch.equal(target.of_base(self.network), merged):
                    raise RuntimeError(
                        f"{target.name} was changed after {self.name} was merged: adapters are "
                        "unmerged in the opposite order"
                    )
            for target, (base, strength) in self._merged.items():
                target.of_base(self.network).copy_(base)
                module = self.network.get_submodule(target.module)
                change.add(module, target.tensor, self.name, self.changes[target], strength)
        self._merged = {}

    def detach(self) -> None:
        """Takes the adapter out; the network is as before, bit for bit."""
        self._remove(keep_change=False)

    def checksums(self) -> dict[str, tuple[float, float]]:
        """Returns two numbers by target: one that depends on all values of its change at strength
        1, and the size of the change.

        They are the sum of the values weighted by a cosine, and the root of their sum of squares.
        """
        with torch.no_grad():
            return {
                target.name: (
                    float((values * _cosine(values.numel())).sum()),
                    float(values.square().sum().sqrt()),
                )
                for target, values in self._values()
            }

    def _values(self) -> Iterator[tuple[Target, torch.Tensor]]:
        for target, one in self.changes.items():
            values = one(target.of_base(self.network))
            yield target, values.detach().double().flatten().cpu()

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


def _require_trained(network: ConditionedUNet, method: str) -> None:
    outputs = [p for p in network.unet.out.parameters() if p.ndim > 1]
    if not any(bool(p.any()) for p in outputs):
        raise UserError(
            f"{method} adapts a trained generator, and this one's network still has its initial "
            "weights: train the base first"
        )


def _cosine(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float64).mul_(0.7).cos_()
