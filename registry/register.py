"""The stage `register`: the registry of MLflow becomes what the files say.

Per dimension, the base and the adapted generator are versions of one registered model. The adapted
one is the champion if it passes the gate: its regional distance to the validation subjects of the
target group is below that of the base. Otherwise the base is champion.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, get_args

import click

from contracts.console import command, say
from contracts.paths import REPORTS
from models.config import Dim

if TYPE_CHECKING:
    from registry.description import ModelDescription

REGISTRY = REPORTS / "registry.json"


def register() -> None:
    """Make the registry equal to the files and write `data/reports/registry.json`.

    Raises
    ------
    UserError : if a generator or report is missing, or the store does not answer.
    """
    from registry.description import read_description
    from registry.reconciliation import reconcile
    from services.tracking import page

    # All files are read before anything is changed.
    models = {dim: read_description(dim) for dim in get_args(Dim)}
    for model in models.values():
        changes = reconcile(model)
        click.echo(
            f"{model.name}: {'; '.join(changes) or 'nothing to change'}; champion: "
            f"{model.gate.champion} ({model.gate.reason})"
        )
    write_record(models)
    for line in page.hints():
        say(line)


def write_record(models: dict[Dim, ModelDescription]) -> None:
    """Write what follows from the files; an unchanged record is left as it is."""
    content = {dim: model.to_json() for dim, model in models.items()}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    if REGISTRY.exists() and REGISTRY.read_text() == text:
        return
    REGISTRY.parent.mkdir(parents=True, exist_ok=True)
    unfinished = REGISTRY.with_suffix(f".{os.getpid()}.partial")
    unfinished.write_text(text)
    # The old file may be a link into DVC's cache, which must not be written through.
    unfinished.replace(REGISTRY)


@command()
def main() -> None:
    """Make MLflow's registry equal to the trained generators and their reports."""
    register()


if __name__ == "__main__":
    main()
