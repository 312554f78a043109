"""A study: many trials on a Ray cluster, proposed by Optuna, that survives being stopped."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from contracts.console import say
from contracts.errors import UserError
from services.tracking import start_run
from training.objective import OBJECTIVE, PENALTY, Inner, Job, name_of, run_trial
from training.trial import Config, Trial, TrialFolder, key_of, rounded

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# A worker that dies (out of memory, a lost node) is given a second chance; an error of the trial
# itself is its result.
_RESTARTS = 1
_RAY = "ray"


@dataclass(frozen=True, slots=True)
class Choices:
    """What the outer loop may choose; names as in `training.settings.AdaptSettings.with_choices`.

    Parameters
    ----------
    learning_rate : lowest and highest; searched on a logarithmic scale.
    rank, steps, site_gain : the values to choose from.
    blocks : patterns to choose one from.
    """

    rank: tuple[int, ...]
    learning_rate: tuple[float, float]
    steps: tuple[int, ...]
    blocks: tuple[str, ...]
    site_gain: tuple[bool, ...]

    def __post_init__(self) -> None:
        low, high = self.learning_rate
        if not 0 < low < high < 1:
            raise ValueError(f"learning_rate: expected 0 < low < high < 1, found {low}, {high}")
        for name in self.names():
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one value, found none")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the searched settings."""
        return tuple(field.name for field in fields(cls))

    def distributions(self) -> dict[str, BaseDistribution]:
        """The same as Optuna's distributions."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution

        found: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(getattr(self, name)) for name in self.names()
        }
        found["learning_rate"] = FloatDistribution(*self.learning_rate, log=True)
        return found

    def require(self, config: Config) -> None:
        """Check that a configuration can be chosen: Optuna would draw another one instead.

        Raises
        ------
        UserError : naming the setting that is not among the choices.
        """
        for name in self.names():
            allowed, value = getattr(self, name), config[name]
            if name == "learning_rate":
                inside = allowed[0] <= value <= allowed[1]
            else:
                inside = value in allowed
            if not inside:
                raise UserError(
                    f"tune.choices.{name} is {list(allowed)} and leaves out {value}, the value of "
                    "the hand-picked settings that the search starts from; widen it"
                )


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried, and on what.

    Parameters
    ----------
    trials : in all, finished ones of an earlier call included.
    concurrent : trials at a time.
    cpus, gpus : for each trial; a share of a GPU is allowed.
    seed : of the sampler.
    """

    trials: int
    concurrent: int
    cpus: int
    gpus: float
    seed: int


def search(
    job: Job, inner: Inner, choices: Choices, default: Config, effort: Effort
) -> list[Trial]:
    """Run the trials that are still missing; call it while connected to a cluster.

    The hand-picked `default` is the first trial, so that every other one can be compared to it.
    Trials that were cut off are begun again with the same settings.

    Returns
    -------
    All finished trials of the study, in the order they were started.

    Raises
    ------
    UserError : if the default is not among the choices, or the search was stopped half-way.
    """
    choices.require(default)
    default = rounded(default)
    folder = TrialFolder(job.trials)
    done = folder.finished()
    missing = effort.trials - len(done)
    if missing > 0:
        if done:
            say(f"{len(done)} of {effort.trials} trials are done already; going on")
        _run(job, inner, choices, first(folder, default), effort, missing)
        done = folder.finished()
    if len(done) < effort.trials:
        raise UserError(
            f"stopped with {len(done)} of {effort.trials} trials done; they are kept: run the "
            "same command to go on"
        )
    if key_of(default) not in {trial.key for trial in done}:
        raise RuntimeError("the hand-picked settings were not tried")
    return done


def first(folder: TrialFolder, default: Config) -> list[Config]:
    """Settings to try before any that the sampler proposes."""
    begun = [config for config in folder.interrupted() if config != default]
    return begun if folder.result(default) else [default, *begun]


def _run(
    job: Job,
    inner: Inner,
    choices: Choices,
    points: list[Config],
    effort: Effort,
    missing: int,
) -> None:
    from ray import tune

    tuner = tune.Tuner(
        tune.with_resources(
            partial(run_trial, job=job, inner=inner), {"cpu": effort.cpus, "gpu": effort.gpus}
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher(job, choices, points, effort),
            num_samples=missing,
            max_concurrent_trials=effort.concurrent,
            # Saves the imports of each trial; on a GPU the memory of the last trial may linger.
            reuse_actors=effort.gpus == 0,
        ),
        run_config=tune.RunConfig(
            name=_RAY,
            storage_path=str(job.trials.parent),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            callbacks=[_teller(TrialFolder(job.trials), effort.trials)],
        ),
    )
    for result in tuner.fit():
        if result.error is not None and result.config is not None:
            _lost(job, result.config, str(result.error))
    # Ray's own records; ours are in the trials' folders.
    shutil.rmtree(job.trials.parent / _RAY, ignore_errors=True)


def searcher(job: Job, choices: Choices, points: list[Config], effort: Effort) -> Any:
    """Ray's wrapper of an Optuna study that knows the finished trials and starts with `points`."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    done = TrialFolder(job.trials).finished()
    sampler = optuna.samplers.TPESampler(
        # Settings act together, and others are still running when one is proposed. No `group`:
        # no setting here depends on another.
        multivariate=True,
        constant_liar=True,
        n_startup_trials=max(3, effort.trials // 3),
        # Another seed after each stop, or the first proposals would come a second time.
        seed=effort.seed + len(done),
    )
    search_alg = OptunaSearch(
        choices.distributions(),
        metric=OBJECTIVE,
        mode="min",
        points_to_evaluate=points,
        sampler=sampler,
    )
    for trial in done:
        search_alg.add_evaluated_point(
            trial.config, trial.val_regional_distance, error=trial.failed
        )
    return search_alg


def _lost(job: Job, config: Config, reason: str) -> None:
    """Close a trial whose worker died: nobody else can."""
    config = rounded(config)
    key = key_of(config)
    run = start_run(
        job.experiment,
        name_of(config),
        config,
        job.tags | {"stage": "trial"},
        parent=job.parent,
        key=f"{job.parent}/{key}",
        uri=job.tracking_uri,
    )
    run.finish("FAILED")
    failure = reason.strip().splitlines()[-1][:300]
    trial = Trial(key, config, time.time(), 0.0, run.id, failure=failure)
    TrialFolder(job.trials).end(trial)


def _teller(folder: TrialFolder, total: int) -> Any:
    from ray.tune import Callback

    class Teller(Callback):
        """One line for each trial that is over."""

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            done = folder.finished()
            distances = [one.val_regional_distance for one in done if not one.failed]
            value = (trial.last_result or {}).get(OBJECTIVE, PENALTY)
            what = "failed" if value == PENALTY else f"regional distance {value:.4f}"
            best = f", best {min(distances):.4f}" if distances else ""
            say(f"trial {len(done)}/{total} {name_of(trial.config)}: {what}{best}")

    return Teller()
