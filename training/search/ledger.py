"""The study in MLflow: one run for it, and a nested one for each trial.

The study is the truth and MLflow its copy. A thread compares them now and then and writes what
MLflow lacks, so that a server that is away for a while, or a driver that was killed, leaves nothing
open or missing once the command has run again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.console import say
from contracts.errors import UserError
from contracts.tracking import EXPERIMENT
from services.tracking import store
from services.tracking.experiment import experiment_id
from services.tracking.run import NOTE, PARENT
from services.tracking.views import SAMPLES
from training.search.database import shown
from training.search.records import Record, State
from training.search.space import Config, name_of
from training.search.study import Study

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_KEY, _STATE = "dti.key", "state"
_SYNC_EVERY_S = 3.0
_PATIENCE_S = 60.0
_PICTURE = "samples.png"
_STATUS = {
    State.RUNNING: "RUNNING",
    State.DONE: "FINISHED",
    State.STOPPED_EARLY: "FINISHED",
    State.FAILED: "FAILED",
    State.LOST: "KILLED",
}
# Names in MLflow, as the other stages have them.
METRICS = {
    "regional_distance": "val/regional_distance",
    "copy_share": "val/copy_share",
    "trainable": "adapter/trainable",
    "trainable_share": "adapter/trainable_share",
    "adapter_bytes": "adapter/bytes",
    "seconds": "train/seconds",
    "memory_mb": "train/memory_mb",
}


class Ledger:
    """Writes a study to MLflow.

    Parameters
    ----------
    uri : of the tracking store.
    tags : of every run, see `services.tracking.lineage`.
    params : of the study's run.
    """

    def __init__(
        self, study: Study, uri: str, tags: Mapping[str, str], params: Mapping[str, Any]
    ) -> None:
        self.study, self.uri, self.tags, self.params = study, uri, dict(tags), params
        store.set_defaults()  # before mlflow is imported
        self.parent = ""
        self._runs: dict[int, str] = {}
        self._written: dict[int, tuple[Any, ...]] = {}
        self._losses: dict[int, dict[str, float]] = {}
        self._said = False
        self._turn = threading.Lock()

    def progress(self, number: int, step: int, loss: float) -> None:
        """Remembers the held-out loss of a trial that runs."""
        self._losses.setdefault(number, {})[str(step)] = loss

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Writes to MLflow from a thread; at the end it waits a little for one that is away."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(_SYNC_EVERY_S):
                self.try_sync()

        thread = threading.Thread(target=work, daemon=True, name="ledger")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.finish()

    def finish(self) -> None:
        """Writes what is missing; gives up after a minute, which the next start makes good."""
        until = time.monotonic() + _PATIENCE_S
        while not self.try_sync():
            if time.monotonic() > until:
                say(
                    f"tracking: {shown(self.uri)} does not answer; the study is whole without "
                    "it, and is written there when the same command is run again"
                )
                return
            time.sleep(_SYNC_EVERY_S)

    def try_sync(self) -> bool:
        """Writes what is missing, and returns whether that went well."""
        from mlflow.exceptions import MlflowException

        try:
            with self._turn:
                self.sync()
        except (MlflowException, UserError, OSError) as error:
            if not self._said:
                reason = str(error).strip().partition("\n")[0]
                say(f"tracking: the store does not answer, the search goes on: {reason}")
            self._said = True
            return False
        if self._said:
            say("tracking: the store answers again")
        self._said = False
        return True

    def sync(self) -> None:
        """Makes the runs of MLflow what the study says.

        Raises
        ------
        UserError, MlflowException, OSError : if the store does not answer.
        """
        client = store.client(self.uri)
        place = experiment_id(client, EXPERIMENT, self.uri)
        if not self.parent:
            self._find(client, place)
        for record in self.study.records():
            if not record.config:
                continue
            losses = self._losses.get(record.number, {})
            losses = losses | record.result.get("held_out_loss", {})
            picture = self.study.folder / "trials" / str(record.number) / _PICTURE
            wanted = (record.state, len(losses), picture.exists())
            if self._written.get(record.number) != wanted:
                self._write(client, place, record, losses, picture)
                self._written[record.number] = wanted
                if record.state is not State.RUNNING:
                    self._losses.pop(record.number, None)

    def _find(self, client: MlflowClient, place: str) -> None:
        """Finds the runs of an earlier start, and makes the study's run if there is none."""
        own = f"tags.`{_KEY}` = '{self.study.name}'"
        found = client.search_runs([place], own, max_results=1)
        parent = found[0] if found else self._made_parent(client, place)
        nested = f"tags.`{PARENT}` = '{parent.info.run_id}'"
        token = None
        while True:
            page = client.search_runs([place], nested, max_results=1000, page_token=token)
            for run in page:
                number = int(run.data.tags[_KEY].rpartition("/")[2])
                self._runs[number] = run.info.run_id
                if run.info.status != "RUNNING" and run.data.tags.get(_STATE):
                    state = State(run.data.tags[_STATE])
                    picture = self.study.folder / "trials" / str(number) / _PICTURE
                    losses = int(run.data.tags.get("losses", 0))
                    self._written[number] = (state, losses, picture.exists())
            token = page.token
            if not token:
                break
        self.parent = parent.info.run_id

    def _made_parent(self, client: MlflowClient, place: str) -> Run:
        tags = self.tags | {"stage": "sweep", _KEY: self.study.name}
        name = f"search-{self.study.settings.dim}"
        run = client.create_run(place, run_name=name, tags=tags)
        for key, value in self.params.items():
            client.log_param(run.info.run_id, key, value)
        return run

    def _write(
        self,
        client: MlflowClient,
        place: str,
        record: Record,
        losses: Mapping[str, float],
        picture: Path,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run = self._runs.get(record.number)
        if run is None:
            tags = self.tags | {
                "stage": "trial",
                _KEY: f"{self.study.name}/{record.number}",
                PARENT: self.parent,
                "slot": str(record.slot),
            }
            name = f"{record.number} {name_of(record.config)}"
            # Another driver, or an answer that did not arrive, may have made it.
            found = client.search_runs([place], f"tags.`{_KEY}` = '{tags[_KEY]}'", max_results=1)
            made = (
                found[0]
                if found
                else client.create_run(
                    place, start_time=int(1000 * record.began), run_name=name, tags=tags
                )
            )
            run = self._runs[record.number] = made.info.run_id
        now = int(1000 * (record.ended or time.time()))
        # Times that depend on the trial alone: what is written again is then the same point.
        began = int(1000 * record.began)
        metrics = [
            Metric("val/loss", loss, began + int(step), int(step)) for step, loss in losses.items()
        ]
        metrics += [
            Metric(name, float(record.result[key]), now, 0)
            for key, name in METRICS.items()
            if key in record.result
        ]
        params = [Param(k, str(v)) for k, v in flat(record.config).items()]
        tags_now = {_STATE: str(record.state), "failure": record.failure, "losses": len(losses)}
        run_tags = [RunTag(k, str(v)) for k, v in tags_now.items()]
        client.log_batch(run, metrics=metrics, params=params, tags=run_tags)
        if picture.exists():
            import numpy as np
            from PIL import Image

            with Image.open(picture) as image:
                client.log_image(run, np.asarray(image), key=SAMPLES, step=0, synchronous=True)
        if record.state is not State.RUNNING:
            client.set_terminated(run, _STATUS[record.state], end_time=now)

    def conclude(
        self,
        metrics: Mapping[str, float],
        curve: Sequence[tuple[float, float]],
        note: str,
        files: Sequence[Path],
    ) -> bool:
        """Writes the end of the study to its run, and returns whether that went well.

        Parameters
        ----------
        curve : when each trial ended, in seconds since the epoch, and the hypervolume after it.
        """
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        self.finish()
        try:
            client, now = store.client(self.uri), int(1000 * time.time())
            entries = [Metric(f"search/{k}", float(v), now, 0) for k, v in metrics.items()]
            entries += [
                Metric("search/hypervolume", volume, int(1000 * ended), i + 1)
                for i, (ended, volume) in enumerate(curve)
            ]
            client.log_batch(self.parent, metrics=entries)
            client.set_tag(self.parent, NOTE, note)
            for path in files:
                client.log_artifact(self.parent, str(path))
            client.set_terminated(self.parent, "FINISHED")
        except (MlflowException, UserError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            say(f"tracking: the end of the study is not in {shown(self.uri)}: {reason}")
            return False
        return True


def flat(config: Config) -> dict[str, Any]:
    """Returns a trial's choices as flat parameters; those of a method have its name in front."""
    found = {k: v for k, v in config.items() if k not in ("settings", "blocks")}
    found |= {f"{config['method']}.{k}": v for k, v in config["settings"].items()}
    if "blocks" in config:
        found["blocks"] = " ".join(config["blocks"])
    return found


def keep_picture(folder: Path, pictures: Sequence[Any]) -> None:
    """Writes the picture of a trial's samples as a file into its folder."""
    import numpy as np
    from PIL import Image

    for pixels in pictures:
        folder.mkdir(parents=True, exist_ok=True)
        shown = pixels
        if shown.dtype != np.uint8:
            shown = np.round(np.clip(shown, 0.0, 1.0) * 255).astype(np.uint8)
        partial = folder / f"{_PICTURE}.partial"
        Image.fromarray(shown).save(partial, format="png")
        partial.replace(folder / _PICTURE)
