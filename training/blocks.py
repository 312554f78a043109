"""The blocks of a base's network and what each method would train there.

`python -m training.blocks --dim 3d` lists them for the base of the last training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from contracts import paths
from contracts.console import command

if TYPE_CHECKING:
    from models.diffusion.network import ConditionedUNet


def table(network: ConditionedUNet) -> str:
    """Returns lines of text: a row per block with its weights and, per method, trained parameters.

    Methods have their default settings.
    """
    from models.adapters.method import methods
    from models.adapters.targets import all_targets, blocks

    names = list(methods())
    counts = {name: _counts(network, name) for name in names}
    width = max(map(len, blocks(network)))
    lines = [f"{'block':{width}} {'weights':>10} " + " ".join(f"{name:>9}" for name in names)]
    total = dict.fromkeys(names, 0)
    size = 0
    for block in blocks(network):
        weights = sum(t.of_base(network).numel() for t in all_targets(network) if t.block == block)
        row = [counts[name].get(block, 0) for name in names]
        lines.append(f"{block:{width}} {weights:10d} " + " ".join(f"{n:9d}" for n in row))
        size += weights
        total = {name: total[name] + n for name, n in zip(names, row, strict=True)}
    lines.append(f"{'all':{width}} {size:10d} " + " ".join(f"{total[n]:9d}" for n in names))
    share = " ".join(f"{100 * total[n] / size:8.2f}%" for n in names)
    return "\n".join([*lines, f"{'':{width}} {'':10} {share}"])


def _counts(network: ConditionedUNet, name: str) -> dict[str, int]:
    """Returns the trained parameters of a method by block."""
    import torch

    from models.adapters.method import methods
    from models.adapters.targets import all_targets

    targets = all_targets(network)
    tensors = {target: target.of_base(network).detach() for target in targets}
    changes = methods()[name]().changes(tensors, torch.Generator().manual_seed(0))
    found: dict[str, int] = {}
    known: set[int] = set()
    for target, change in changes.items():
        for parameter in change.parameters():
            if id(parameter) not in known:
                known.add(id(parameter))
                found[target.block] = found.get(target.block, 0) + parameter.numel()
    return found


@command()
@click.option("--dim", type=click.Choice(["2d", "3d"]), required=True, help="Slices or volumes.")
def main(dim: str) -> None:
    """List the blocks that `adapt.<dim>.blocks` of params.yaml can name."""
    from models.generator import Generator

    click.echo(table(Generator.load(paths.MODELS / dim / "base").denoiser.network))


if __name__ == "__main__":
    main()
