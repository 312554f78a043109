"""Sample on the command line: the same bytes as the service gives.

`python -m serving.sample --dim 3d --age 65 --sex F --seed 1 --map fa`
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from contracts.console import command, say
from contracts.errors import UserError


@command()
@click.option("--dim", help="2d or 3d  [default: 3d]")
@click.option("--age", type=float, help="Years.")
@click.option("--sex", help="F or M.")
@click.option("--site", help="Of generators that were told sites  [default: their average]")
@click.option("--adapter", help="Alias or version of a registered one  [default: the champion's]")
@click.option("--strength", type=float, help="Of the adapter; 0: the base  [default: 1]")
@click.option("--seed", type=int, help="Fixes the volume  [default: 0]")
@click.option("--steps", type=int, help="Steps of the sampler  [default: 16]")
@click.option("--map", help="fa, md, ad or rd  [default: fa]")
@click.option("--count", type=int, help="Volumes, seeds counting up; above 1 gives 4D.")
@click.option("--output", type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="Generator folder  [default: champion]"
)
@click.option("--replay", "again", type=click.Path(path_type=Path), help="Make this file again.")
def main(output: Path | None, model: Path | None, again: Path | None, **asked: Any) -> None:
    """Make a synthetic volume of one map, or make an exported one again and compare."""
    given = {name: value for name, value in asked.items() if value is not None}
    if again is not None:
        if given:
            raise UserError(f"--replay takes its values from the file: drop --{next(iter(given))}")
        _replay(again, model, output)
    else:
        _sample(given, model, output)


def _sample(given: dict[str, Any], folder: Path | None, output: Path | None) -> None:
    from serving.messages import sample_request
    from serving.sampling import champion_model, folder_model, sample

    request = sample_request(given)
    model = champion_model(request.dim) if folder is None else folder_model(folder)
    with _bar("sampling") as on_step:
        made = sample(model, request, on_step=on_step)
    for warning in made.warnings:
        say(f"warning: {warning}")
    click.echo(made.save(output))


def _replay(path: Path, folder: Path | None, output: Path | None) -> None:
    from serving.replay import replay

    with _bar("replaying") as on_step:
        made = replay(path, folder, on_step)
    if output is not None:
        made.sample.save(output)
    same = "the same bits" if made.difference == 0 else f"differs by up to {made.difference:g}"
    click.echo(f"{path}: replayed, {same}")


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, one line in a log; from the first step on."""
    with ExitStack() as stack:
        bars: list[Any] = []

        def on_step(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=what, file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield on_step


if __name__ == "__main__":
    main()
