"""Script: `python evaluation/eval_metrics.py` prints the scores of the chain's generators.

Generators that the chain has not evaluated yet are evaluated first.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Python puts the folder of a script first on its path, and not the project.
if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import json
from typing import cast

import click

from contracts.console import command
from contracts.errors import UserError
from contracts.params import load
from contracts.paths import MODELS, REPORTS
from evaluation.evaluate import NAMES, EvaluateSettings, Name, evaluate
from evaluation.summary import table


@command()
@click.option("--name", type=click.Choice(NAMES), multiple=True, help="Default: all there are.")
@click.option("--again", is_flag=True, help="Score again what has been scored.")
def main(name: tuple[str, ...], again: bool) -> None:
    """Score the generators in data/models next to held-out real maps and print the table."""
    wanted = [n for n in name or NAMES if name or _generator_file(n).exists()]
    if not wanted:
        raise UserError(f"no generator in {MODELS}: run `dvc repro` first")
    settings = load(EvaluateSettings, "evaluate")
    reports = []
    for one in wanted:
        path = REPORTS / f"evaluate-{one}.json"
        if again or not path.exists():
            reports.append(evaluate(cast(Name, one), settings))
        else:
            reports.append(json.loads(path.read_text()))
    click.echo(table(reports))


def _generator_file(name: str) -> Path:
    kind, dim = name.split("-")
    return MODELS / dim / kind / "generator.json"


if __name__ == "__main__":
    main()
