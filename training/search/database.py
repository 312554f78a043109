"""Where studies are kept: Optuna's storage in a file, or in a database that several hosts reach."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

VARIABLE = "OPTUNA_STORAGE"


def storage(url: str) -> Any:
    """Returns Optuna's storage at a URL; that of a file waits for others who write to it."""
    from optuna.storages import RDBStorage

    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, **options})


def url_of(folder: Path) -> str:
    """Returns the URL of the storage: `OPTUNA_STORAGE`, or else a file in the study's folder."""
    return os.environ.get(VARIABLE) or f"sqlite:///{folder.resolve() / 'study.db'}"


def shown(url: str) -> str:
    """Returns a URL without its password."""
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)
