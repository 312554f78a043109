"""`python -m services.tracking ui`: MLflow's page on the project's runs."""

from __future__ import annotations

import click

from contracts.console import command, say


@click.group()
def main() -> None:
    """The tracking store of the project."""


@command(context_settings={"ignore_unknown_options": True})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, help="Port to listen on.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[MLFLOW_OPTIONS]...")
def ui(host: str, port: int, options: tuple[str, ...]) -> None:
    """Print the links to the saved views and start MLflow's page. Ctrl-C ends it.

    Other options are passed on to `mlflow server`, e.g. `--allowed-hosts lab:5000`.
    """
    from services.tracking import page, store

    uri = store.tracking_uri()
    local = store.local_folder(uri) is not None
    base = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}" if local else uri
    lines = page.saved_views(base)
    click.echo(f"runs and models: {base}/#/experiments?workflowType=machine_learning")
    if not lines:
        say("no run yet: `dvc repro` makes the first")
    for line in lines:
        click.echo(line)
    if local:
        say("MLflow starts and answers in some seconds; Ctrl-C ends it")
        page.serve(host, port, options)


main.add_command(ui)

if __name__ == "__main__":
    main()
