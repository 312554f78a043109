"""Where studies are kept: Optuna's storage in a file, or in a database that several hosts reach."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import UserError

VARIABLE = "OPTUNA_STORAGE"
_SECRETS = re.compile(r"(://[^:/@]*:)[^@/]*(?=@)|((?:password|token|secret)=)[^&]*", re.IGNORECASE)


def storage(url: str) -> Any:
    """Returns Optuna's storage at a URL; that of a file waits for others who write to it."""
    from optuna.storages import RDBStorage

    options = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs={"pool_pre_ping": True, **options})


def url_of(folder: Path) -> str:
    """Returns the URL of the storage: `OPTUNA_STORAGE`, or else a file in the study's folder."""
    return os.environ.get(VARIABLE) or f"sqlite:///{folder.resolve() / 'study.db'}"


def shown(url: str) -> str:
    """Returns a URL without passwords, and a file's path as seen from the current folder."""
    hidden = _SECRETS.sub(lambda m: f"{m[1] or m[2]}***", url)
    return hidden.replace(f"{Path.cwd()}/", "")


@contextmanager
def errors_in_words(url: str) -> Iterator[None]:
    """Tells in words what is wrong with the storage.

    Raises
    ------
    UserError : instead of what Optuna, SQLAlchemy or the operating system raise.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as error:
        raise UserError(
            f"the study in {shown(url)} needs the package {error.name or error}: install it "
            "beside this project, e.g. `pip install psycopg2-binary` for PostgreSQL"
        ) from error
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        cause = error.__cause__ or error
        reason = shown(str(cause).strip().partition("\n")[0])
        raise UserError(
            f"the study in {shown(url)} cannot be read or written: {reason}. What is there is "
            "kept; mend this and run the same command to go on"
        ) from error


def open_storage(url: str) -> Any:
    """Returns the storage at a URL.

    Raises
    ------
    UserError : if it cannot be opened.
    """
    with errors_in_words(url):
        try:
            return storage(url)
        except ValueError as error:
            raise OSError(f"{error}: expected e.g. postgresql://user@host:5432/name") from error
