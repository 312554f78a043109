"""Fixtures that several rooms' tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Before torch is loaded, here and in what tests start: their arrays are so small that a second
# thread costs more than it gives, and a machine with other work much more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see contracts/__init__.py

# Warnings of packages about packages: nothing that our code could do differently.
FOREIGN_WARNINGS = (
    "ignore:The ``noload`` loader strategy:DeprecationWarning",  # MLflow on SQLAlchemy 2.1
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",  # MLflow on its own classes
)


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, except these."""
    for line in FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite tracking store: its schema takes seconds to make, so it is made once."""
    from services.tracking import store

    folder = tmp_path_factory.mktemp("store")
    store.client(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture
def tracking_uri(store_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking store of the test's own, and the one that commands use."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(store_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("DTI_CACHE", str(tmp_path / "cache"))
    return uri
