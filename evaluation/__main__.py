"""The command line of the judge, `python -m evaluation`: audits, and tests of the judge itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.console import command, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from evaluation.pretrained_weights import NetworkName

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_GROUP = click.option(
    "--group", default="base", show_default=True, help="Group of the cohort's participants."
)
_PERMUTATIONS = click.option(
    "--shuffles",
    "permutations",
    default=300,
    show_default=True,
    help="Permutations per comparison.",
)


@click.group()
def main() -> None:
    """What synthetic FA and MD maps are worth."""


@command()
@click.argument("synthetic", type=_FOLDER)
@click.option("--train", type=_FOLDER, required=True, help="Real maps the generator has seen.")
@click.option("--test", type=_FOLDER, required=True, help="Real maps that were held out.")
@click.option("--atlas", type=_FILE,
              help="Label image on the maps' grid; names in a .tsv or .txt beside it.")  # fmt: skip
@click.option("--canaries", default=0, help="Plant this many disguised training subjects.")
@click.option("--medicalnet", help="Weights for its features: FILE or hf:OWNER/NAME/FILE.")
@click.option("--radimagenet", help="Weights for its features, likewise.")
@click.option("--networks", is_flag=True, help="Train 2D and 3D networks too (minutes).")
@click.option("--out", type=click.Path(path_type=Path), default=Path("audit"), show_default=True)
@click.option("--workers", default=1, show_default=True)
@_PERMUTATIONS
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
    permutations: int,
) -> None:
    """Audit a folder of maps; write metrics.json and report.html."""
    from evaluation import report
    from evaluation.folder_audit import FolderAuditSettings, audit_folders

    weights: dict[NetworkName, str] = {}
    if medicalnet is not None:
        weights["medicalnet"] = medicalnet
    if radimagenet is not None:
        weights["radimagenet"] = radimagenet
    settings = FolderAuditSettings(atlas, canaries, weights, networks, workers, permutations)
    result = audit_folders(synthetic, train, test, settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(result.to_json(), indent=1) + "\n")
    report.write(out / "report.html", result)
    for answer in result.answers:
        click.echo(f"{answer.question:<10} {answer.verdict:<12} {answer.words}")
    say(f"{out}/report.html is the report to read, {out}/metrics.json has all numbers")


@command()
@_GROUP
@_PERMUTATIONS
def controls(group: str, permutations: int) -> None:
    """Audit real subjects spoiled in known ways; ends with 1 if a verdict is not as expected."""
    from evaluation.self_test import audit_controls, control_table

    results = audit_controls(group, permutations)
    click.echo(control_table(results))
    unexpected = [r.name for r in results if set(r.failed) != set(r.expected)]
    if unexpected:
        raise UserError(
            f"verdicts other than expected (bold in the table): {', '.join(unexpected)}"
        )


@command()
@_GROUP
@click.option("--splits", default=50, show_default=True)
@_PERMUTATIONS
def calibrate(group: str, splits: int, permutations: int) -> None:
    """Audit real against real subjects: rate of false alarms, coverage of intervals."""
    from evaluation.self_test import audit_real_splits

    click.echo(audit_real_splits(group, splits, permutations).table())


@command(name="seed-compat")
@click.argument("synthetic", type=_FOLDER)
@click.option("--real", type=_FOLDER, required=True, help="Real maps to compare with.")
def seed_compat(synthetic: Path, real: Path) -> None:
    """Print the numbers that the source repository publishes (MD, 64^3)."""
    from evaluation.seed_compat import numbers
    from evaluation.volume_set import read_folder

    made, space = read_folder(synthetic)
    true, _ = read_folder(real, space)
    if min(len(made), len(true)) < 2:
        raise UserError(
            f"expected at least 2 maps per folder, found {len(made)} in {synthetic} and "
            f"{len(true)} in {real}"
        )
    click.echo(json.dumps(numbers(made.volumes[:, 1], true.volumes[:, 1]), indent=2))


for one in (audit, controls, calibrate, seed_compat):
    main.add_command(one)

if __name__ == "__main__":
    main()
