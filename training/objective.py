"""The inner loop of the search: one adapter fitted, one number for the outer loop."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import UserError
from services.tracking import Run, start_run
from training.adapt import AdaptResult
from training.settings import AdaptSettings, HeldOutSettings
from training.trial import Config, Trial, TrialFolder, key_of, rounded

if TYPE_CHECKING:
    from training.adapt_data import AdaptData

OBJECTIVE = "val_regional_distance"
# What a failed trial reports. Finite, because Optuna refuses NaN and would leave the trial open
# for ever; only its rank counts for the sampler, so its size is of no matter.
PENALTY = 1e6
_LISTED = 300  # characters of a failure that are kept


@dataclass(frozen=True, slots=True)
class Job:
    """What all trials of a study share; small enough to be sent to a worker.

    Every path is absolute, and every worker must see it: on a cluster it lies in a shared folder.

    Parameters
    ----------
    base : folder of the base generator.
    derivatives, split : the cohort, and who is in which part of it.
    trials : folder of the study's trials.
    adapt : settings that a trial's configuration changes; the others stay.
    held_out : how a trial is scored.
    threads : of torch, in each trial.
    experiment, parent, tracking_uri : where the trials' runs go.
    tags : lineage and dimension, computed once where the search was started.
    """

    base: Path
    derivatives: Path
    split: Path
    trials: Path
    adapt: AdaptSettings
    held_out: HeldOutSettings
    threads: int
    experiment: str
    parent: str
    tracking_uri: str
    tags: dict[str, str]


Inner = Callable[[Config, Path, Job, Run], AdaptResult]


def run_trial(config: Config, job: Job, inner: Inner) -> dict[str, float]:
    """Run one trial in a worker; a trial that fails costs the study nothing but itself.

    Parameters
    ----------
    inner : fits an adapter with `config`, in the given folder, and measures it.

    Returns
    -------
    The outer objective, or `PENALTY`.
    """
    config = rounded(config)
    folder = TrialFolder(job.trials)
    known = folder.result(config)
    if known is None:
        known = _run(config, job, inner, folder)
    return {OBJECTIVE: PENALTY if known.failed else known.val_regional_distance}


def fit_adapter(config: Config, out: Path, job: Job, run: Run) -> AdaptResult:
    """The real inner loop: `training.adapt.adapt_generator` with the trial's settings.

    Raises
    ------
    UserError : if this worker does not see the project's data.
    """
    import torch

    from training.adapt import adapt_generator

    torch.set_num_threads(job.threads)
    for path in (job.base, job.derivatives, job.split):
        if not path.exists():
            raise UserError(f"this worker sees no {path}: put the project in a shared folder")
    work = out / "work"
    work.mkdir(exist_ok=True)
    settings = job.adapt.with_choices(config)
    data = _data(job.derivatives, job.split)
    result = adapt_generator(
        job.base, out, settings, job.held_out, data, work, job.trials.parent, run
    )
    shutil.rmtree(work)
    return result


@cache
def _data(derivatives: Path, split: Path) -> AdaptData:
    from training.adapt_data import AdaptData

    return AdaptData.load(derivatives, split)


def _run(config: Config, job: Job, inner: Inner, folder: TrialFolder) -> Trial:
    began = time.time()
    key = key_of(config)
    out = folder.begin(config)
    with start_run(
        job.experiment,
        name_of(config),
        params=config,
        tags=job.tags | {"stage": "trial"},
        parent=job.parent,
        key=f"{job.parent}/{key}",
        uri=job.tracking_uri,
    ) as run:
        try:
            trial = _measured(inner(config, out, job, run), config, began, run)
        except Exception as error:
            # Whatever goes wrong in one trial (memory, a rank that does not fit): the others go on.
            failure = f"{type(error).__name__}: {error}"[:_LISTED]
            trial = Trial(key, config, began, time.time() - began, run.id, failure=failure)
        folder.end(trial)
        if trial.failed:
            run.tags({"failure": trial.failure})
            run.finish("FAILED")
            return trial
        run.metrics(
            {
                "val/regional_distance": trial.val_regional_distance,
                "val/copy_share": trial.copy_share,
                "adapter/trainable": trial.trainable,
                "adapter/trainable_share": trial.trainable_share,
                "adapter/bytes": trial.adapter_bytes,
            }
        )
    return trial


def _measured(result: AdaptResult, config: Config, began: float, run: Run) -> Trial:
    if not math.isfinite(result.val_regional_distance):
        raise UserError(f"the regional distance came out as {result.val_regional_distance}")
    return Trial(
        key=key_of(config),
        config=config,
        started=began,
        seconds=time.time() - began,
        run_id=run.id,
        val_regional_distance=result.val_regional_distance,
        copy_share=result.copy_share,
        trainable=result.trainable,
        trainable_share=result.trainable_share,
        adapter_bytes=result.adapter_bytes,
    )


def name_of(config: Config) -> str:
    """The idea of a trial in a few letters, e.g. ``r8 lr3e-04 150 steps attention gain``."""
    parts = [f"r{config['rank']}", f"lr{config['learning_rate']:.0e}", f"{config['steps']} steps"]
    parts += [config["blocks"], *(["gain"] if config["site_gain"] else [])]
    return " ".join(parts)
