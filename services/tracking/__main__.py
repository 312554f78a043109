"""`python -m services.tracking ui`: MLflow's page on the project's runs."""

from __future__ import annotations

import contextlib

import click

from contracts.console import command, say
from contracts.errors import UserError


@click.group()
def main() -> None:
    """The tracking store of the project."""


@command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, help="Port to listen on.")
def ui(host: str, port: int) -> None:
    """Open MLflow's page and print the links to its saved views. Ctrl-C ends it."""
    from services.tracking import page, store

    uri = store.tracking_uri()
    if store.local_folder(uri) is None:
        _print(uri, page.saved_views(uri))
        return
    say(f"starting MLflow on {uri}")
    with page.serve(host, port) as (base, server):
        _print(base, page.saved_views(base))
        say("Ctrl-C ends it")
        with contextlib.suppress(KeyboardInterrupt):
            raise UserError(f"MLflow's server ended by itself, with code {server.wait()}")


def _print(base: str, lines: list[str]) -> None:
    click.echo(f"runs and models: {base}/#/experiments?workflowType=machine_learning")
    if not lines:
        say("no run yet: `dvc repro` makes the first")
    for line in lines:
        click.echo(line)


main.add_command(ui)

if __name__ == "__main__":
    main()
