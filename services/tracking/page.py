"""MLflow's page on the tracking store."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from contracts.errors import UserError
from services.tracking import store, views


def serve(host: str, port: int, options: Sequence[str] = ()) -> NoReturn:
    """Become MLflow's own server on the local store; Ctrl-C or SIGTERM end it.

    Parameters
    ----------
    options : more options of `mlflow server`, e.g. ``--allowed-hosts``.

    Raises
    ------
    UserError : if the port is taken.
    """
    uri = store.tracking_uri()
    folder = store.local_folder(uri)
    assert folder is not None, "a server keeps the runs; open its address instead"
    _require_free(host, port)
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    words += ["--artifacts-destination", (folder / "artifacts").resolve().as_uri()]
    words += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    words += ["--host", host, "--port", str(port), *options]
    # MLflow's job runner costs eight processes and 2 GB for functions that we do not use.
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of MLflow's packages about one another
    sys.stdout.flush()
    os.execv(sys.executable, words)


def saved_views(base: str) -> list[str]:
    """The links to the saved views of every experiment, a heading line before each.

    Parameters
    ----------
    base : address of the server that shows them, e.g. ``http://127.0.0.1:5000``.
    """
    lines: list[str] = []
    for experiment in store.client().search_experiments():
        if views.present(experiment.tags):
            lines += [experiment.name, *views.links(base, experiment.experiment_id)]
    return lines


def hints() -> list[str]:
    """How to look at the runs; to be said at the end of a command that made some."""
    uri = store.tracking_uri()
    return saved_views(uri) if store.local_folder(uri) is None else ["to see the runs: make ui"]


def _require_free(host: str, port: int) -> None:
    # MLflow's launcher loads for seconds before it finds the port taken, and then ends with code 0.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be used ({error.strerror}); choose another with "
                "--port"
            ) from error
