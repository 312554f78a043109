"""MLflow's page on the tracking store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from contracts.errors import UserError
from services.tracking import store, views

_START_WITHIN_S = 180.0
_STOP_WITHIN_S = 10.0


@contextmanager
def serve(host: str, port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run MLflow's server on a local store; yields its address and process once it answers.

    Raises
    ------
    UserError : if the port is taken, or the server does not come up.
    """
    uri = store.tracking_uri()
    folder = store.local_folder(uri)
    if folder is None:
        raise UserError(f"the runs are kept by {uri}: open that address instead")
    _claim(host, port)
    store.client(uri)  # the server must not be the one to create the database
    base = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    words = ["server", "--backend-store-uri", uri, "--artifacts-destination"]
    words += [(folder / "artifacts").resolve().as_uri(), "--workers", "1"]
    words += ["--host", host, "--port", str(port)]
    # MLflow's job runner costs eight processes and 2 GB for functions that we do not use.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        _await(base, server)
        yield base, server
    finally:
        signal.signal(signal.SIGTERM, previous)
        _end(server)


def saved_views(base: str) -> list[str]:
    """The links to the saved views of every experiment, a heading line before each."""
    lines: list[str] = []
    for experiment in store.client().search_experiments():
        if views.present(experiment.tags):
            lines += [experiment.name, *views.links(base, experiment.experiment_id)]
    return lines


def hints() -> list[str]:
    """How to look at the runs; to be said at the end of a command that made some."""
    uri = store.tracking_uri()
    return saved_views(uri) if store.local_folder(uri) is None else ["to see the runs: make ui"]


def _claim(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host} cannot be used ({error.strerror}); choose another with "
                "--port"
            ) from error


def _await(base: str, server: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + _START_WITHIN_S
    while time.monotonic() < limit:
        if server.poll() is not None:
            raise UserError(
                f"MLflow's server ended with code {server.returncode}; see why with `mlflow server "
                f"--backend-store-uri {store.tracking_uri()}`"
            )
        try:
            urllib.request.urlopen(f"{base}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise UserError(f"MLflow's server did not answer at {base} within {_START_WITHIN_S:.0f} s")


def _end(server: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            return
        try:
            server.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            continue


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
