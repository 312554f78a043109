from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from contracts.errors import UserError
from registry import versions
from registry.champion import fetch_champion
from services.tracking import page, start_run, store

if TYPE_CHECKING:
    from mlflow.models import Model


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def save_folder(path: Path, entity: Model) -> None:
    """The least that is an MLflow model with a generator folder in it."""
    folder = path / "artifacts" / "base"
    folder.mkdir(parents=True)
    (folder / "generator.json").write_text("{}")
    entity.add_flavor("python_function", artifacts={"generator": {"path": "artifacts/base"}})
    entity.save(str(path / "MLmodel"))


def test_without_a_server_the_runs_are_in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = store.local_folder(store.tracking_uri())
    assert folder == store.project_root() / "mlruns"
    assert (store.project_root() / "services" / "tracking").is_dir()


def test_a_dead_server_is_told_within_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=r"does not answer.*MLFLOW_TRACKING_URI"):
        store.client(f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 20


def test_a_store_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        store.client(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")


def test_a_taken_port_is_told(tracking_uri: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}.*--port"):
            page.serve("127.0.0.1", port)


@pytest.mark.acceptance
def test_the_page_prints_its_views_serves_clients_and_ends(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that knows only the server's address logs a run and registers a generator."""
    start_run("e", "idea", {}, {}).finish()
    port = free_port()
    words = ["-m", "services.tracking", "ui", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(store.project_root())}
    server = subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert server.stdout
    try:
        _, title, *links = [server.stdout.readline() for _ in range(5)]
        base = f"http://127.0.0.1:{port}"
        assert title.strip() == "e"
        assert all(f"{base}/#/experiments/" in link for link in links)
        wait_for(base, server)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", base)
        with start_run("remote", "idea", {"seed": 1}, {"stage": "train"}) as run:
            run.image(np.zeros((4, 4), np.float32), "samples/fa_md", 1)
        version = versions.add(
            "dti-2d", save_folder, run.id, {"digest": "abcd"}, description="# A model"
        )
        versions.promote("dti-2d", str(version.version))
        champion = fetch_champion("2d")
        assert (champion.digest, champion.version) == ("abcd", "1")
        assert (champion.folder / "generator.json").read_text() == "{}"
        assert champion.folder.is_relative_to(tmp_path)
    finally:
        server.terminate()
        server.communicate(timeout=60)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for(base: str, server: subprocess.Popen[str]) -> None:
    """Return once a server answers."""
    for _ in range(600):
        assert server.poll() is None
        try:
            urllib.request.urlopen(f"{base}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{base} does not answer")
