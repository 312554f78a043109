"""`python -m training.search`: search what to adapt and how, or adopt what was found."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import click

from contracts.console import command
from contracts.errors import UserError
from contracts.params import load, parse
from training.search.settings import SAMPLERS, Sampler, TuneSettings


@command()
@click.argument("action", type=click.Choice(["search", "adopt"]), default="search")
@click.option(
    "--sampler",
    type=click.Choice(SAMPLERS),
    help="Instead of tune.sampler; random: a study to compare with.",
)
@click.option("--trial", type=int, help="adopt: this trial instead of the chosen one.")
def main(action: str, sampler: str | None, trial: int | None) -> None:
    """Search what to adapt and how (section `tune`), or adopt a trial into params.yaml.

    A search that is stopped goes on where it was. RAY_ADDRESS names a Ray cluster, without which
    this machine is used; OPTUNA_STORAGE a database, without which the study is a file.
    """
    if action == "adopt":
        _adopt(trial)
        return
    settings = load(TuneSettings, "tune")
    if sampler is not None:
        settings = replace(settings, sampler=cast(Sampler, sampler))
    from training.search.run import search

    if search(settings).chosen is not None:
        click.echo("\nto use the chosen settings: make adopt (or make adopt TRIAL=...)")


def _adopt(number: int | None) -> None:
    from training.search.adopt import adopt
    from training.search.run import report
    from training.settings import AdaptSettings

    found = report()
    number = found["chosen"] if number is None else number
    if number is None:
        raise UserError(f"the search chose nothing: {found['said'][0]}")
    trials = {one["number"]: one for one in found["trials"] if one["adapt"]}
    if number not in trials:
        known = ", ".join(str(n) for n in sorted(trials))
        raise UserError(f"the last search has no trial {number}: expected one of {known}")
    adopt(found["dim"], parse(AdaptSettings, trials[number]["adapt"], f"trial {number}"))


if __name__ == "__main__":
    main()
