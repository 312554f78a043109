"""Where MLflow keeps runs and models, and the client that reaches it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE = "MLFLOW_TRACKING_URI"
_ANSWER_WITHIN_S = 5.0
# MLflow's own patience is minutes: a dead server has to be told, not waited for.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
}


def project_root() -> Path:
    """The folder that holds `services/` and `mlruns/`."""
    return Path(__file__).resolve().parents[2]


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or else the SQLite store in the project's `mlruns/`."""
    chosen = os.environ.get(VARIABLE)
    return chosen or f"sqlite:///{project_root() / 'mlruns' / 'mlflow.db'}"


def local_folder(uri: str) -> Path | None:
    """The folder of a SQLite store; None where a server keeps the runs."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).parent


def set_defaults() -> None:
    """Set MLflow's switches that must be in the environment before it is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def client(uri: str | None = None) -> MlflowClient:
    """A client of the store at `uri` (default: `tracking_uri()`), known to answer.

    Raises
    ------
    UserError : if the server does not answer, or the database cannot be opened.
    """
    chosen = uri or tracking_uri()
    found = _client(chosen)
    import mlflow

    # A client asks the process's own store for `models:/` addresses, whatever its own is.
    mlflow.set_tracking_uri(chosen)
    return found


@cache
def _client(uri: str) -> MlflowClient:
    set_defaults()
    folder = local_folder(uri)
    if uri.startswith(("http://", "https://")):
        _require_answer(uri)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        if folder is None:
            reached = MlflowClient(tracking_uri=uri)
            reached.search_experiments(max_results=1)
            return reached
        from filelock import FileLock

        folder.mkdir(parents=True, exist_ok=True)
        # Two processes that create one SQLite store at once break its schema.
        with FileLock(folder / ".lock"):
            return MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the tracking store {uri} cannot be used: {reason}; mend or unset {VARIABLE}"
        ) from error


def _require_answer(uri: str) -> None:
    try:
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_ANSWER_WITHIN_S).close()
    except urllib.error.HTTPError as error:
        error.close()  # it answers; a refusal is told by the first real request
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"the tracking server {uri} does not answer ({reason}); start it, or correct or unset "
            f"{VARIABLE}"
        ) from error
