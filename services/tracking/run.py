"""One run of a stage or trial, as MLflow keeps it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from contracts.console import say
from contracts.errors import UserError
from contracts.tracking import Status, Value
from services.tracking import store
from services.tracking.experiment import experiment_id
from services.tracking.hashes import UNKNOWN

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from numpy.typing import NDArray

PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
# The tag that MLflow shows as the version of the code.
_COMMIT = "mlflow.source.git.commit"
_KEY = "dti.key"
_BATCH = 100  # the most params or tags MLflow takes in one request
_RETRY_AFTER_S = 60.0
# The store's own words for "ask me later"; everything else it will never take.
_LATER = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


class Run:
    """A handle on a run; a Ray worker may hold it, and many may in one process.

    Logging never stops the work that is logged: while the store does not answer, entries wait
    here and are sent with a later one.
    """

    def __init__(self, run_id: str, uri: str) -> None:
        self.id = run_id
        self.uri = uri
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self._quiet_until = 0.0
        self._closed = False
        self._last_images: dict[str, NDArray[Any]] = {}

    def params(self, values: Mapping[str, Value]) -> None:
        """What the run was asked to do; a value that is set cannot change."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)) for key, value in values.items()]
        for first in range(0, len(entries), _BATCH):
            self._send("log_batch", params=entries[first : first + _BATCH])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Numbers named ``stage/metric``; log a final score once, without step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in values.items()]
        self._send("log_batch", metrics=entries)

    def tags(self, values: Mapping[str, Value]) -> None:
        """What runs are filtered by; a tag may change."""
        from mlflow.entities import RunTag

        entries = [RunTag(key, str(value)) for key, value in values.items()]
        for first in range(0, len(entries), _BATCH):
            self._send("log_batch", tags=entries[first : first + _BATCH])

    def note(self, markdown: str) -> None:
        """The description that MLflow shows above the run."""
        self.tags({NOTE: markdown})

    def image(self, pixels: NDArray[Any], key: str, step: int = 0) -> None:
        """A picture (H, W) or (H, W, 3): uint8, or floats of which [0, 1] is shown.

        Use the same key, seeds and conditions in every run: MLflow puts them side by side.
        """
        import numpy as np

        if pixels.dtype != np.uint8:
            pixels = np.round(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)
        self._last_images[key] = pixels
        self._send("log_image", image=pixels, key=key, step=step, synchronous=True)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """A file, or all files of a folder."""
        if path.is_dir():
            self._send("log_artifacts", local_dir=str(path), artifact_path=folder)
        else:
            self._send("log_artifact", local_path=str(path), artifact_path=folder)

    def text(self, text: str, name: str) -> None:
        """A text kept as the artifact `name`."""
        self._send("log_text", text=text, artifact_file=name)

    def finish(self, status: Status = "FINISHED") -> None:
        """Close the run; say what the store did not take.

        The last picture of each key is logged once more, as ``final/<name>`` without step: a view
        shows one step of all runs, and their last steps differ.
        """
        self._closed = True
        for key, pixels in self._last_images.items():
            name = f"final/{key.rpartition('/')[2]}"
            self._send("log_image", image=pixels, key=name, step=0, synchronous=True)
        self._send("set_terminated", status=status)
        self._quiet_until = 0.0
        if not self._flush():
            say(f"tracking: {len(self._waiting)} entries of run {self.id} are not in {self.uri}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and not self._closed:
            self.finish()
        elif error is not None:
            self.finish("FAILED" if isinstance(error, Exception) else "KILLED")

    def _send(self, method: str, **arguments: Any) -> None:
        self._waiting.append((method, arguments))
        self._flush()

    def _flush(self) -> bool:
        from mlflow.exceptions import MlflowException

        if time.monotonic() < self._quiet_until:
            return False
        while self._waiting:
            method, arguments = self._waiting[0]
            try:
                getattr(store.client(self.uri), method)(self.id, **arguments)
            except (MlflowException, UserError, OSError) as error:
                reason = str(error).strip().partition("\n")[0]
                if isinstance(error, MlflowException) and error.error_code not in _LATER:
                    say(f"tracking: an entry of run {self.id} is left out: {reason}")
                else:
                    self._quiet_until = time.monotonic() + _RETRY_AFTER_S
                    say(f"tracking: the store does not answer, the work goes on: {reason}")
                    return False
            self._waiting.popleft()
        return True


def start_run(
    experiment: str,
    name: str,
    params: Mapping[str, Value],
    tags: Mapping[str, Value],
    parent: str | None = None,
    key: str | None = None,
    uri: str | None = None,
) -> Run:
    """Open a run.

    Parameters
    ----------
    name : the idea of the run, e.g. ``lora-r8``; runs are told apart by it.
    params : flat; names with dots or slashes.
    tags : `stage` (train, adapt, sweep, trial, registered), `dim` and the like, and the lineage.
    parent : id of the run that this one is nested under.
    key : a name of this piece of work. If the experiment has a run of this key that did not
        finish, that one is continued: a worker that is started again makes no second run.
    uri : tracking store; default `services.tracking.store.tracking_uri()`. Pass it to workers.

    Raises
    ------
    UserError : if the store does not answer or refuses.
    """
    uri = uri or store.tracking_uri()
    client = store.client(uri)
    from mlflow.exceptions import MlflowException

    try:
        place = experiment_id(client, experiment, uri)
        run = Run(_continued(client, place, key) or _created(client, place, name, parent), uri)
    except MlflowException as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"no run could be opened in {uri}: {reason}") from error
    commit = tags.get("git.commit", UNKNOWN)
    own = {} if commit == UNKNOWN else {_COMMIT: commit}
    run.tags({**tags, **own} if key is None else {**tags, **own, _KEY: key})
    run.params(params)
    return run


def resume_run(run_id: str, uri: str | None = None) -> Run:
    """A handle on a run that exists; its status and end time stay as they are.

    Raises
    ------
    UserError : if the store does not answer or has no such run.
    """
    uri = uri or store.tracking_uri()
    client = store.client(uri)
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"the tracking store {uri} has no run {run_id}: was {store.VARIABLE} another one when "
            "it was trained?"
        ) from error
    return Run(run_id, uri)


def _created(client: MlflowClient, place: str, name: str, parent: str | None) -> str:
    tags = {} if parent is None else {PARENT: parent}
    run_id: str = client.create_run(place, run_name=name, tags=tags).info.run_id
    return run_id


def _continued(client: MlflowClient, place: str, key: str | None) -> str | None:
    if key is None:
        return None
    wanted = f"tags.`{_KEY}` = '{key}' and attributes.status != 'FINISHED'"
    found = client.search_runs([place], wanted, max_results=1)
    if not found:
        return None
    run_id: str = found[0].info.run_id
    client.update_run(run_id, status="RUNNING")
    return run_id
