"""How many parameters each method trains, counted by its formula from the shapes alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from models.adapters.adapter import Adapter
from models.adapters.method import matrix, method, methods
from models.adapters.targets import Target, all_targets
from models.diffusion.network import ConditionedUNet
from models.generator import Generator


def _lora(network: ConditionedUNet, rank: int) -> int:
    total = 0
    for target in all_targets(network):
        shape = target.of_base(network).shape
        if target.tensor == "weight" and target.kind in ("convolution", "linear"):
            rows, columns = matrix(target.of_base(network))
            r, kernel = min(rank, rows, columns), int(np.prod(shape[2:]))
            if kernel > 1:
                r = min(r, shape[1])
                total += r * (rows + shape[1] + r * kernel)
            else:
                total += r * (rows + columns)
    return total


def _dora(network: ConditionedUNet, rank: int) -> int:
    layers = [
        target
        for target in all_targets(network)
        if target.tensor == "weight" and target.kind in ("convolution", "linear")
    ]
    return _lora(network, rank) + sum(len(t.of_base(network)) for t in layers)


def _svdiff(network: ConditionedUNet) -> int:
    shapes = [t.of_base(network) for t in all_targets(network) if t.tensor == "weight"]
    return sum(min(matrix(w)) if w.ndim > 1 else len(w) for w in shapes)


def _difffit(network: ConditionedUNet) -> int:
    total = 0
    for target in all_targets(network):
        tensor = target.of_base(network)
        if target.tensor == "bias" or target.kind == "norm":
            total += len(tensor)
        elif target.block == "condition_embed":
            total += tensor.numel()
        elif target.module.endswith(("conv2.conv", "out_proj")):
            total += len(tensor)
    return total


def _sum(network: ConditionedUNet, chosen: Callable[[Target], bool]) -> int:
    return sum(t.of_base(network).numel() for t in all_targets(network) if chosen(t))


COUNTS: dict[str, Callable[[ConditionedUNet], int]] = {
    "none": lambda network: 0,
    "lora": lambda network: _lora(network, 4),
    "dora": lambda network: _dora(network, 4),
    "svdiff": _svdiff,
    "difffit": _difffit,
    "bitfit": lambda network: _sum(network, lambda t: t.tensor == "bias"),
    "norm": lambda network: _sum(network, lambda t: t.kind == "norm"),
    "attention": lambda network: _sum(network, lambda t: "attention" in t.block),
    "full": lambda network: sum(p.numel() for p in network.parameters()),
}


@pytest.mark.parametrize("name", sorted(methods()))
def test_the_count_is_that_of_the_formula(base: Generator, name: str) -> None:
    expected = COUNTS[name](base.denoiser.network)
    assert Adapter(base.denoiser.network, method(name, {})).count == expected
