"""Generators compared at equal CPU time: `python -m benchmarks.generators`, part of `make bench`.

What was finished is kept in a work folder, so that a comparison that was stopped goes on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from benchmarks import contest
from contracts.console import command
from contracts.errors import UserError
from contracts.paths import WORK

NAMES = ("ours-2d", "ours-3d", "gaussian", "monai-ddpm-2d", "monai-ddpm-3d", "monai-ldm-3d", "seed")
_EVALUATIONS = (16, 8, 4)


@command()
@contest.options
@click.argument("names", nargs=-1)
@click.option("--seconds", default=400.0, show_default=True, help="CPU seconds of training each.")
@click.option("--samples", default=32, show_default=True, help="Volumes of each.")
@click.option(
    "--evaluations",
    multiple=True,
    default=_EVALUATIONS,
    show_default=True,
    help="Network evaluations per volume of ours, each in turn.",
)
@click.option(
    "--peer-evaluations",
    default=25,
    show_default=True,
    help="Network evaluations per volume of a peer: DDIM; 1000 is its own DDPM.",
)
@click.option("--tutorial-width", is_flag=True, help="Pixel networks as wide as the tutorials'.")
@click.option(
    "--newcomers",
    default=0,
    help="Simulate so many new people and compare with them, not with the test subjects.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=WORK / "generators",
    show_default=True,
    help="What was finished; delete it to start anew.",
)
def main(
    names: tuple[str, ...],
    name: str | None,
    seconds: float,
    samples: int,
    repeats: int,
    source: contest.Source,
    evaluations: tuple[int, ...],
    peer_evaluations: int,
    tutorial_width: bool,
    newcomers: int,
    work: Path,
) -> None:
    """Compare generators at equal CPU time. NAMES: contestants, by default the seven."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import contestants, scores, table_definitions
    from benchmarks.newcomers import newcomers as simulated
    from contracts.params import PARAMS_FILE

    known = contestants.contestants(tutorial_width)
    chosen = names or NAMES
    if unknown := sorted(set(chosen) - set(known)):
        raise UserError(f"no contestant {', '.join(unknown)}: expected some of {', '.join(known)}")
    others = simulated(newcomers, work.with_name("newcomers")) if newcomers else None
    held = contest.Contest.of(source, samples, seconds, repeats, others)
    settings = (
        contest.code(), held.train.digest, held.test.digest, seconds, samples, peer_evaluations,
        tutorial_width,
    )  # fmt: skip
    work = work / _digest(repr(settings))
    # A peer does not depend on these.
    own = _digest(f"{evaluations} {PARAMS_FILE.read_text()}")

    def folder(contestant: str, seed: int) -> Path:
        return work / "-".join([contestant, *([own] if known[contestant].own else []), str(seed)])

    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = held.rows(
            [(c, known[c], evaluations if known[c].own else (peer_evaluations,)) for c in chosen],
            folder,
        )
    click.echo(f"{seconds:g} CPU seconds of training each, one core\n")
    click.echo(table_definitions.markdown(table_definitions.CONTEST, rows))
    click.echo("\nratios of kernel distances, median [least, most] over trainings\n")
    click.echo(table_definitions.markdown(table_definitions.RATIOS, scores.ratios(rows)))
    held.write(name or "generators", rows)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
