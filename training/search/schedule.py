"""Trials on a Ray cluster: Ray Tune schedules, the study says what to try and keeps what came."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import TuneError
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher

from contracts.console import say
from training.search.driver import Driver
from training.search.records import OVER, State
from training.search.settings import TuneSettings
from training.search.space import name_of
from training.search.study import Study
from training.search.trial import (
    FAILURE,
    FILES,
    HELD_OUT_LOSS,
    PICTURES,
    RESULT,
    STEP,
    Inner,
    Shared,
    fit_adapter,
    run,
)

# A storage on another host is not asked more often.
_ASK_EVERY_S = 1.0
_WAIT_FOR_OTHERS_S = 5.0
# The first quarter of the steps says too little to stop a trial by.
_EARLIEST = 4
_TOLD = 200  # characters of Ray's reason

Changed = Callable[[int, dict[str, Any]], None]


class StudySearcher(Searcher):
    """Ray Tune's searcher that proposes the study's waiting slots and tells it what came.

    Nothing is kept here: Tune's own records are not needed to go on after a stop.

    Parameters
    ----------
    changed : called with a trial's number and each report of it.
    """

    def __init__(self, study: Study, driver: Driver, changed: Changed) -> None:
        super().__init__()
        self.study, self.driver, self.changed = study, driver, changed
        self.error: BaseException | None = None
        self._numbers: dict[str, int] = {}
        self._losses: dict[int, dict[str, float]] = {}
        self._ask_again = 0.0

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Notes an error, of which Tune passes on the traceback alone."""
        try:
            yield
        except BaseException as error:
            self.error = error
            raise

    def suggest(self, trial_id: str) -> Any:
        """Returns the settings of a waiting slot, None if there may be one later, or the end."""
        if time.monotonic() < self._ask_again:
            return None
        with self._noted():
            asked = self.study.ask(self.driver.id)
        if asked is None:
            self._ask_again = time.monotonic() + _ASK_EVERY_S
            # A trial that runs may be lost, and its slot wait again.
            return None if self._numbers else Searcher.FINISHED
        number, config = asked
        self._numbers[trial_id] = number
        self._losses[number] = {}
        return {"number": number, "config": config}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passes on how far a trial is."""
        if trial_id in self._numbers and STEP in result:
            number = self._numbers[trial_id]
            self._losses[number][str(result[STEP])] = float(result[HELD_OUT_LOSS])
            with self._noted():
                self.changed(number, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Ends a trial in the study."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        self._ask_again = 0.0
        with self._noted():
            self._end(number, result or {}, error)

    def _end(self, number: int, result: dict[str, Any], error: bool) -> None:
        losses = self._losses.pop(number)
        if RESULT in result:
            _keep(self.study.folder / "trials" / str(number), result[FILES])
            self.study.tell(number, json.loads(result[RESULT]))
        elif FAILURE in result:
            self.study.tell_failed(number, str(result[FAILURE]))
        elif error or STEP not in result:
            self.study.tell_lost(number, "its worker was lost: killed, out of memory, or its node")
        else:
            # Tune ends a trial before it passes the last report on.
            losses[str(result[STEP])] = float(result[HELD_OUT_LOSS])
            self.study.tell_stopped_early(number, {"held_out_loss": losses})
        self.changed(number, result)

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Tune writes its searcher to a file, and nobody reads that."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing that matters: the study is the state."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Reads nothing: the study is the state."""


class _Forget(tune.Callback):
    """Takes files out of Tune's memory, which keeps the last report of every trial."""

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Forgets the files of a trial that is over; the searcher has them."""
        for key in (FILES, PICTURES):
            trial.last_result.pop(key, None)


def _keep(folder: Path, files: list[tuple[str, bytes]]) -> None:
    for name, content in files:
        folder.mkdir(parents=True, exist_ok=True)
        partial_file = folder / f"{name}.partial"
        partial_file.write_bytes(content)
        partial_file.replace(folder / name)


def run_trials(
    study: Study,
    driver: Driver,
    shared: Shared,
    settings: TuneSettings,
    changed: Changed,
    inner: Inner = fit_adapter,
) -> None:
    """Runs the study's waiting slots until none is left, those of lost drivers included.

    Call it while connected to a cluster.
    """
    reference = ray.put(shared)
    while True:
        study.reconcile()
        states = [one.state for one in study.slots()]
        if State.WAITING in states:
            _run_waiting(study, driver, reference, settings, changed, inner)
        elif State.RUNNING in states:
            time.sleep(_WAIT_FOR_OTHERS_S)
        else:
            return


def _run_waiting(
    study: Study,
    driver: Driver,
    shared: Any,
    settings: TuneSettings,
    changed: Changed,
    inner: Inner,
) -> None:
    scheduler = None
    if settings.stop_early:
        most = max(settings.space.steps)
        scheduler = AsyncHyperBandScheduler(
            time_attr=STEP,
            metric=HELD_OUT_LOSS,
            mode="min",
            max_t=most + 1,  # at which all trials would be stopped, before they are scored
            grace_period=max(most // _EARLIEST, 1),
            reduction_factor=2,
        )
    # Ctrl-C and SIGTERM are ours: the study lets go of its trials.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # The last report of a trial has no loss; the scheduler leaves it alone.
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    searcher = StudySearcher(study, driver, changed)
    with tempfile.TemporaryDirectory(prefix="tune-") as records:
        tuner = tune.Tuner(
            tune.with_resources(
                partial(_work, shared=shared, inner=inner),
                {"cpu": settings.cpus, "gpu": settings.gpus},
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                # The searcher says when it is over.
                num_samples=10**9,
                max_concurrent_trials=settings.concurrent,
                # Saves the imports of each trial; on a GPU the memory of the last may linger.
                reuse_actors=settings.gpus == 0,
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=records,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                callbacks=[_Forget()],
            ),
        )
        try:
            tuner.fit()
        except TuneError:
            if searcher.error is not None:
                raise searcher.error from None
            raise


def _work(chosen: dict[str, Any], shared: Any, inner: Inner) -> None:
    run(chosen, ray.get(shared), inner)


def say_progress(study: Study, number: int, result: dict[str, Any]) -> None:
    """Says in a line how far a trial is, or what came of it."""
    name = f"trial {number} ({name_of(study.configs[number])})"
    if STEP in result and not result.get("done"):
        say(f"{name}: step {result[STEP]}, held-out loss {result[HELD_OUT_LOSS]:.4f}")
        return
    one = next(r for r in study.records() if r.number == number)
    over = sum(r.state in OVER for r in study.slots())
    count = f"{over}/{study.settings.trials} over"
    if one.state is State.DONE:
        values = ", ".join(f"{k} {one.result[k]:.4g}" for k in study.settings.objectives)
        say(f"{name}: {values}; {count}")
    else:
        say(f"{name}: {one.state} {one.failure[:_TOLD]}; {count}")
