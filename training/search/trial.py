"""One trial: the inner loop, run by a worker of the Ray cluster."""

from __future__ import annotations

import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from training.search.space import Config, Space

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.tracking import Run
    from models.generator import Generator
    from training.adapt_data import AdaptData
    from training.adapt_group import AdaptGroup
    from training.settings import HeldOutSettings

_LISTED = 300  # characters of a failure that are kept
# Keys of what a worker reports.
RESULT, FAILURE, STEP, HELD_OUT_LOSS = "result", "failure", "step", "held_out_loss"
FILES, PICTURES = "files", "pictures"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial.

    Parameters
    ----------
    regional_distance : outer objective, to the target group's validation subjects
        (`evaluation.regional_means`).
    copy_share : share of samples that are near copies of a training subject.
    trainable, trainable_share : trained parameters, and how many for each one of the network.
    adapter_bytes : size of the adapter file.
    seconds : of training.
    memory_mb : the most memory that the worker has had resident so far.
    held_out_loss : by step of training; empty where nothing is trained.
    kept_step : the step whose weights remained; None where nothing is trained.
    """

    regional_distance: float
    copy_share: float
    trainable: int
    trainable_share: float
    adapter_bytes: int
    seconds: float
    memory_mb: float
    held_out_loss: dict[str, float] = field(default_factory=dict)
    kept_step: int | None = None


@dataclass(frozen=True, slots=True)
class Shared:
    """What all trials of a study share. Ray puts it once on each node.

    Parameters
    ----------
    groups : the target group by (site gain, shift of the mean).
    threads : of torch, in each trial.
    """

    base: Generator
    data: AdaptData
    groups: dict[tuple[bool, bool], AdaptGroup]
    held_out: HeldOutSettings
    space: Space
    threads: int

    @property
    def size_bytes(self) -> int:
        """The size of its volumes, about."""
        data = self.data
        arrays = [data.train.volumes, data.val.volumes, data.held_out.volumes]
        arrays += [images.images for g in self.groups.values() for images in (g.train, g.val)]
        return sum(array.nbytes for array in arrays)


class TrialRun:
    """Stands for the tracking run of a training: MLflow is written by the driver, not by workers.

    Parameters
    ----------
    report : called with the loss on held-out subjects.
    steps : of the training.

    Attributes
    ----------
    losses : on held-out subjects, by step.
    pictures : the last one of each key.
    """

    def __init__(self, report: Callable[[dict[str, Any]], None], steps: int) -> None:
        self.id, self.uri = "", ""
        self.report, self.steps = report, steps
        self.losses: dict[str, float] = {}
        self.pictures: dict[str, NDArray[Any]] = {}

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Reports the loss on held-out subjects."""
        if "val/loss" in values:
            self.losses[str(step)] = values["val/loss"]
            if step < self.steps:  # after the last step, nothing is saved by a stop
                self.report({STEP: step, HELD_OUT_LOSS: values["val/loss"]})

    def image(self, pixels: NDArray[Any], key: str, step: int = 0) -> None:
        """Keeps the last picture of a key."""
        self.pictures[key] = pixels

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Returns what does nothing, for all else that a run does."""
        return lambda *values, **named: None


Inner = Callable[[Config, Shared, Path, TrialRun], Result]


def fit_adapter(config: Config, shared: Shared, folder: Path, trial_run: TrialRun) -> Result:
    """The inner loop: fits an adapter with a trial's settings, and scores it.

    Parameters
    ----------
    folder : for the adapter.
    """
    import torch

    from training.adapt import adapt_generator

    torch.set_num_threads(shared.threads)
    settings = shared.space.settings(config)
    group = shared.groups[settings.site_gain, settings.mean_shift]
    with tempfile.TemporaryDirectory() as work:
        made = adapt_generator(
            shared.base,
            folder,
            settings,
            shared.held_out,
            shared.data,
            group,
            Path(work),
            cast("Run", trial_run),
        )
    return Result(
        regional_distance=made.val_regional_distance,
        copy_share=made.copy_share,
        trainable=made.trainable,
        trainable_share=made.trainable_share,
        adapter_bytes=made.adapter_bytes,
        seconds=made.seconds,
        memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        held_out_loss=trial_run.losses,
        kept_step=made.kept_step,
    )


def run(chosen: Mapping[str, Any], shared: Shared, inner: Inner) -> None:
    """Runs one trial in a worker and reports to Ray Tune what came of it.

    An error of the trial itself is its result. What is reported last has the key `RESULT` or
    `FAILURE`; the files of the adapter travel with it, so that workers need no shared folder.
    """
    from ray import tune

    with tempfile.TemporaryDirectory() as folder:
        trial_run = TrialRun(tune.report, int(chosen["config"].get("steps", 0)))
        began = time.monotonic()
        try:
            result = inner(dict(chosen["config"]), shared, Path(folder), trial_run)
            failure = _not_finite(result)
        except Exception as error:
            # Whatever goes wrong in one trial (memory, a rank that does not fit): the others go on.
            result, failure = None, f"{type(error).__name__}: {error}"[:_LISTED]
        if failure or result is None:
            tune.report({FAILURE: failure, "after_s": time.monotonic() - began})
            return
        files = [(path.name, path.read_bytes()) for path in Path(folder).iterdir()]
        # As a text and lists: Tune would take dictionaries apart.
        pictures = list(trial_run.pictures.values())
        tune.report({RESULT: json.dumps(asdict(result)), FILES: files, PICTURES: pictures})


def _not_finite(result: Result) -> str:
    """Returns which number of a result is none, or nothing."""
    values = {k: v for k, v in asdict(result).items() if isinstance(v, float)}
    wrong = [f"{k} is {v}" for k, v in values.items() if not math.isfinite(v)]
    return ", ".join(wrong)
