"""Generators compared at equal CPU time: `python benchmarks/generators.py`, part of `make bench`.

Each contestant is trained on the same subjects for the same CPU seconds of one core, samples
volumes of the same ages and sexes, and meets the same judge. What was finished is kept in a work
folder, so that a comparison that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a file: its folder, not the project, leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import click

from benchmarks import contest
from contracts.console import command, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from training.dataset import Subjects

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
    help="Simulate so many new people and judge beside them, not beside the test part.",
)
@click.option("--costs/--no-costs", default=True, help="Also what samples and steps cost.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("data/work/generators"),
    show_default=True,
    help="What was finished; delete it to start anew.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: benchmarks/generators-<seconds>.json."
)
def main(
    names: tuple[str, ...],
    seconds: float,
    samples: int,
    repeats: int,
    cohort: contest.Cohort,
    evaluations: tuple[int, ...],
    peer_evaluations: int,
    tutorial_width: bool,
    newcomers: int,
    costs: bool,
    work: Path,
    out: Path | None,
) -> None:
    """Compare generators at equal CPU time. NAMES: contestants, by default the seven."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import contestants
    from benchmarks.newcomers import newcomers as make_newcomers
    from contracts.params import PARAMS_FILE
    from models.identity import FORMAT

    known = contestants.contestants(tutorial_width)
    chosen = names or NAMES
    if unknown := sorted(set(chosen) - set(known)):
        raise UserError(f"no contestant {', '.join(unknown)}: expected some of {', '.join(known)}")
    others = make_newcomers(newcomers, work.with_name("newcomers")) if newcomers else None
    held = contest.Contest.of(cohort, samples, seconds, repeats, others)
    settings = (
        held.train.digest, held.test.digest, seconds, samples, peer_evaluations, tutorial_width,
    )  # fmt: skip
    work = work / hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    own = f"{FORMAT} {evaluations} {PARAMS_FILE.read_text()}"
    own = hashlib.sha256(own.encode()).hexdigest()[:12]

    def folder(name: str, seed: int) -> Path:
        return work / "-".join([name, *([own] if known[name].own else []), str(seed)])

    torch.set_num_threads(1)
    with threadpool_limits(1):
        entries = [
            (name, known[name], evaluations if known[name].own else (peer_evaluations,))
            for name in chosen
        ]
        report = held.report(held.rows(entries, folder))
        if costs:
            report["costs"] = _costs(held.train, work)
    _tell(report)
    out = out or Path(__file__).with_name(f"generators-{seconds:g}.json")
    out.write_text(json.dumps(report, indent=1) + "\n")
    say(f"written: {out}")


def _costs(subjects: Subjects, work: Path) -> dict[str, Any]:
    from benchmarks import costs

    say("costs of samples and steps")
    return {
        dim: {
            "sampling": costs.sampling(dim, subjects, work / "costs"),
            "training_step": costs.training_step(dim, subjects, work / "costs"),
        }
        for dim in ("2d", "3d")
    }


def _tell(report: dict[str, Any]) -> None:
    from benchmarks.scores import ratios, table

    report["ratios"] = ratios(report["results"])
    click.echo(f"{report['seconds']:g} CPU seconds of training each, one core; n = {report['n']}; "
               f"{report['versions']['cpu']}\n")  # fmt: skip
    click.echo(table(report["results"]))
    click.echo("\nkernel distance, ratios (median [least, most] over trainings)")
    for name, found in report["ratios"].items():
        click.echo(f"- {name}: {_range(found)}")
    for dim, found in report.get("costs", {}).items():
        click.echo(f"\n{dim}: CPU s per volume, and the same network's 1000 evaluations over it")
        sampling, step = found["sampling"], found["training_step"]
        for count, cost in sampling["sample_cpu_s"].items():
            over = sampling["ddpm_over_sample"][count]
            click.echo(f"- {count} evaluations: {_range(cost)}; {_range(over)} times less")
        click.echo(f"{dim}: a plain training step of MONAI's over ours, per image")
        for name, over in step["over_ours"].items():
            click.echo(f"- {name}: {_range(over)}")


def _range(found: dict[str, float]) -> str:
    if not found["n"]:
        return "none: its distance is not above zero"
    return f"{found['median']:.3g} [{found['least']:.3g}, {found['most']:.3g}], n = {found['n']}"


if __name__ == "__main__":
    main()
