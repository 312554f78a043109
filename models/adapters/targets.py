"""The network's tensors that an adapter can change (its targets), by named block."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize

from contracts.errors import UserError
from models.diffusion.network import ConditionedUNet

Kind = Literal["convolution", "linear", "norm", "other"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.GroupNorm, nn.LayerNorm)
# MONAI's names, and the shorter ones of blocks.
_RENAMED = (
    ("class_embedding", "condition_embed"),
    ("down_blocks", "down"),
    ("middle_block", "middle"),
    ("up_blocks", "up"),
    ("attentions", "attention"),
    ("resnets", "resnet"),
)
# The first parts of a name that make a block, e.g. `down.0.resnet.1` or `middle.attention`.
_BLOCK = re.compile(r"(?:down|up)\.\d+\.(?:(?:resnet|attention)\.\d+|\w+)|middle\.\w+|[^.]+")


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor of a network.

    Parameters
    ----------
    block : name of the block that holds it, e.g. ``down.0.resnet.1``.
    module : dotted name of the module that holds it.
    tensor : name of the tensor in the module: ``weight`` or ``bias``.
    kind : of the module.
    """

    block: str
    module: str
    tensor: str
    kind: Kind

    @property
    def name(self) -> str:
        """The dotted name of the tensor."""
        return f"{self.module}.{self.tensor}"

    def of_base(self, network: ConditionedUNet) -> Tensor:
        """Returns the tensor as it is without adapters."""
        module = network.get_submodule(self.module)
        if parametrize.is_parametrized(module, self.tensor):
            original: Tensor = module.parametrizations[self.tensor].original  # type: ignore[index, union-attr]
            return original
        return module.get_parameter(self.tensor)


def all_targets(network: ConditionedUNet) -> tuple[Target, ...]:
    """Returns every tensor of a network, without what adapters added, in the network's order."""
    return tuple(_targets(network))


def _targets(network: ConditionedUNet) -> Iterator[Target]:
    for name, module in network.named_modules():
        if ".parametrizations." in name:
            continue  # what adapters added
        kind: Kind = "other"
        if isinstance(module, _CONVOLUTIONS):
            kind = "convolution"
        elif isinstance(module, nn.Linear):
            kind = "linear"
        elif isinstance(module, _NORMS):
            kind = "norm"
        own = [tensor for tensor, _ in module.named_parameters(recurse=False)]
        if parametrize.is_parametrized(module):
            own += list(module.parametrizations)
        for tensor in ("weight", "bias"):
            if tensor in own:
                yield Target(block_of(name), name, tensor, kind)


def block_of(module: str) -> str:
    """Returns the name of the block that a module of the network belongs to."""
    parts = module.removeprefix("unet.")
    for theirs, ours in _RENAMED:
        parts = re.sub(rf"(^|\.){theirs}(\.|$)", rf"\g<1>{ours}\g<2>", parts)
    match = _BLOCK.match(parts)
    return match.group() if match else parts


def blocks(network: ConditionedUNet) -> tuple[str, ...]:
    """Returns the names of the network's blocks, in the network's order."""
    return tuple(dict.fromkeys(target.block for target in all_targets(network)))


def in_blocks(network: ConditionedUNet, patterns: Sequence[str]) -> tuple[Target, ...]:
    """Returns the targets in the blocks that match a pattern, in the network's order.

    Parameters
    ----------
    patterns : names of blocks, in which ``*`` stands for any characters, e.g. ``up.*``.

    Raises
    ------
    UserError : if a pattern matches no block.
    """
    known = blocks(network)
    lost = [p for p in patterns if not any(fnmatchcase(block, p) for block in known)]
    if lost or not patterns:
        raise UserError(
            f"no block of the network matches {', '.join(lost) or 'an empty list'}: expected names "
            f"or patterns of {', '.join(known)}"
        )
    return tuple(
        target
        for target in all_targets(network)
        if any(fnmatchcase(target.block, pattern) for pattern in patterns)
    )
