"""`python -m evaluation`: judge any synthetic maps, and judge the judge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.console import command, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from evaluation.weights import Kind

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_SHUFFLES = click.option("--shuffles", default=300, show_default=True, help="Per comparison.")


@click.group()
def main() -> None:
    """What synthetic FA and MD maps are worth."""


@command()
@click.argument("synthetic", type=_FOLDER)
@click.option("--train", type=_FOLDER, required=True, help="Real maps the generator has seen.")
@click.option("--test", type=_FOLDER, required=True, help="Real maps nobody has seen.")
@click.option("--atlas", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Label image on the maps' grid; names in a .tsv or .txt beside it.")  # fmt: skip
@click.option("--canaries", default=0, help="Plant this many disguised training subjects.")
@click.option("--medicalnet", help="Weights for its features: FILE or hf:OWNER/NAME/FILE.")
@click.option("--radimagenet", help="Weights for its features, likewise.")
@click.option("--networks", is_flag=True, help="Train 2D and 3D networks too (minutes).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("audit"), show_default=True)
@click.option("--workers", default=1, show_default=True)
@_SHUFFLES
def audit(
    synthetic: Path,
    train: Path,
    test: Path,
    atlas: Path | None,
    canaries: int,
    medicalnet: str | None,
    radimagenet: str | None,
    networks: bool,
    out: Path,
    workers: int,
    shuffles: int,
) -> None:
    """Judge a folder of maps; write metrics.json and report.html."""
    from evaluation import folders, report

    chosen: dict[Kind, str] = {}
    if medicalnet is not None:
        chosen["medicalnet"] = medicalnet
    if radimagenet is not None:
        chosen["radimagenet"] = radimagenet
    settings = folders.Settings(atlas, canaries, chosen, networks, workers, shuffles)
    found = folders.audit(synthetic, train, test, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(found.to_json(), indent=1) + "\n")
    report.write(out / "report.html", found)
    for answer in found.answers:
        click.echo(f"{answer.question:<10} {answer.verdict:<12} {answer.words}")
    say(f"{out}/report.html has the numbers, {out}/metrics.json all of them")


@command()
@click.option("--group", default="base", show_default=True, help="Of the cohort's derivatives.")
@_SHUFFLES
def controls(group: str, shuffles: int) -> None:
    """Audit real subjects spoiled in known ways; ends with 1 if a verdict is not as it must be."""
    from evaluation import trial

    rows = trial.controls(group, shuffles)
    click.echo(trial.table(rows))
    wrong = [row.name for row in rows if set(row.failed) != set(row.expected)]
    if wrong:
        raise UserError(f"not as they must be: {', '.join(wrong)}")


@command()
@click.option("--group", default="base", show_default=True, help="Of the cohort's derivatives.")
@click.option("--splits", default=50, show_default=True)
@_SHUFFLES
def calibrate(group: str, splits: int, shuffles: int) -> None:
    """Audit real against real, many times: false alarms, and what the intervals hold."""
    from evaluation import trial

    click.echo(trial.calibration(group, splits, shuffles).table())


@command(name="seed-compat")
@click.argument("synthetic", type=_FOLDER)
@click.option("--real", type=_FOLDER, required=True, help="Real maps to set beside.")
def seed_compat(synthetic: Path, real: Path) -> None:
    """The source repository's numbers (MD, 64^3), to be set beside those it published."""
    from evaluation.cohort import read
    from evaluation.seed_compat import numbers

    made, space = read(synthetic)
    true, _ = read(real, space)
    if min(len(made), len(true)) < 2:
        raise UserError(f"expected at least 2 maps in {synthetic} and in {real}")
    click.echo(json.dumps(numbers(made.volumes[:, 1], true.volumes[:, 1]), indent=2))


for one in (audit, controls, calibrate, seed_compat):
    main.add_command(one)

if __name__ == "__main__":
    main()
