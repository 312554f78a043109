"""A study in Optuna's storage: what is to be tried, what is being tried and what came of it.

A study has as many slots as trials were asked for. A slot waits, is tried, and ends as done or
failed. When whoever tried it is gone (a killed worker, a lost node, a stopped driver), that trial
is lost, and the slot waits again with the same settings. So no slot is lost or counted twice, and
several drivers can work on one study at once.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.search.database import errors_in_words, open_storage
from training.search.driver import Driver, gone
from training.search.records import Record, State
from training.search.settings import Sampler, TuneSettings
from training.search.space import Config, Space

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

# A worker may be lost so often, for one start of the command, before its slot has to wait for the
# next start: memory that is too small for some settings would otherwise be filled for ever.
_LOSSES = 2
# A sampler may propose again what was tried. After so many times chance proposes something, and
# after as many as the second number what was tried is tried again: the space may be that small.
_REDRAWS, _MOST_REDRAWS = 2, 20
_SLOT, _LOST_BEFORE, _BECAUSE = "slot", "lost before", "because"
_DRIVER, CONFIG, RESULT, _FAILURE = "driver", "config", "result", "failure"
_BEAT = "beat "


class Study:
    """The trials of one study.

    Parameters
    ----------
    url : of Optuna's storage.
    name : of the study.
    folder : of the study's files; one driver at a time changes the study, by a lock there.

    Attributes
    ----------
    configs : what this driver's trials chose, by number.
    """

    def __init__(
        self, url: str, name: str, folder: Path, settings: TuneSettings, space: Space
    ) -> None:
        import optuna
        from filelock import FileLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        self.name, self.folder, self.url = name, folder, url
        self.settings, self.space = settings, space
        self._lock = FileLock(folder / "study.lock")
        self._asked: dict[int, optuna.Trial] = {}
        self.configs: dict[int, Config] = {}
        with self._changing():
            self.storage = open_storage(url)
            self.study = optuna.create_study(
                study_name=name,
                storage=self.storage,
                directions=["minimize"] * len(settings.objectives),
                load_if_exists=True,
            )

    def _sampler(self, kind: Sampler, begun: int) -> BaseSampler:
        """Returns the sampler for the next proposal.

        Parameters
        ----------
        begun : trials so far; each has a seed of its own, whichever driver asks for it.
        """
        import optuna
        from optuna import samplers

        seed = self.settings.seed + begun
        if kind == "random":
            return samplers.RandomSampler(seed=seed)
        if kind == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=self._startup)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return samplers.TPESampler(
                # Settings act together, and depend on the method; others run when one is proposed.
                multivariate=True,
                group=True,
                constant_liar=True,
                n_startup_trials=self._startup,
                seed=seed,
            )

    @property
    def _startup(self) -> int:
        return max(4, self.settings.trials // 3)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Lets one driver at a time change the study, and tells errors of the storage in words."""
        with errors_in_words(self.url), self._lock:
            yield

    def fill(self) -> None:
        """Adds the slots that are missing; those that were lost for good may be tried again.

        The first slots of a new study have the hand-picked settings, so that every other one can be
        compared with them.
        """
        with self._changing():
            trials = self.study.get_trials(deepcopy=False)
            latest = {int(t.user_attrs[_SLOT]): t for t in trials if _SLOT in t.user_attrs}
            points = [self.space.params(c) for c in self.space.hand_picked()]
            for slot in range(self.settings.trials):
                if slot not in latest:
                    fixed = points[slot] if slot < len(points) else {}
                    self._enqueue(slot, fixed, 0)
                elif self._state(latest[slot]) is State.LOST:
                    self._enqueue(slot, _known_params(latest[slot]), 0)

    def _enqueue(self, slot: int, params: Mapping[str, Any], lost: int, because: str = "") -> None:
        attrs = {_SLOT: slot, _LOST_BEFORE: lost, _BECAUSE: because}
        self.study.enqueue_trial(dict(params), user_attrs=attrs)

    def ask(self, driver: str) -> tuple[int, Config] | None:
        """Returns the number and the settings of a slot that was waiting, or None."""
        with self._changing():
            for attempt in range(_MOST_REDRAWS + 1):
                records = self.records()
                states = [one.state for one in records]
                if State.WAITING not in states:
                    return None
                begun = len(states) - states.count(State.WAITING)
                kind: Sampler = self.settings.sampler if attempt < _REDRAWS else "random"
                self.study.sampler = self._sampler(kind, begun)
                trial = self.study.ask()
                trial.set_user_attr(_DRIVER, driver)
                config = self.space.suggest(trial)
                frozen = self.study.get_trials(deepcopy=False)[trial.number]
                same = [r for r in records if r.config == config and r.state is not State.LOST]
                told_to = frozen.system_attrs.get("fixed_params")
                if told_to or not same or attempt == _MOST_REDRAWS:
                    break
                # What comes of these settings is known, or will be: the slot is drawn again.
                known = f"the settings of trial {same[0].number}"
                self._enqueue(int(frozen.user_attrs[_SLOT]), {}, 0, known)
                self._lose(trial.number, known)
            trial.set_user_attr(CONFIG, config)
            self._asked[trial.number] = trial
            self.configs[trial.number] = config
            return trial.number, config

    def _running(self, number: int) -> optuna.Trial | None:
        """Returns a trial of this driver, or None if another one has taken it for lost meanwhile:
        its slot is then tried again, and counts once."""
        from optuna.trial import TrialState

        trial = self._asked.pop(number)
        state = self.study.get_trials(deepcopy=False)[number].state
        return trial if state is TrialState.RUNNING else None

    def tell(self, number: int, result: Mapping[str, Any]) -> None:
        """Ends a trial with its result."""
        with self._changing():
            if (trial := self._running(number)) is not None:
                for name, over in self._beyond(result).items():
                    trial.set_constraint(name, over)
                trial.set_user_attr(RESULT, dict(result))
                self.study.tell(trial, self._values(result))

    def _values(self, result: Mapping[str, Any]) -> list[float]:
        return [float(result[name]) for name in self.settings.objectives]

    def _beyond(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Returns by how much a result is beyond each limit; Optuna's constraints."""
        return {k: float(result[k]) - float(limit) for k, limit in self.settings.limits.items()}

    def learn(self, config: Config, result: Mapping[str, Any], source: str) -> bool:
        """Adds the result of another study's trial, which is no slot of this one.

        Returns whether it was new.
        """
        from optuna.trial import FixedTrial, create_trial

        fixed = FixedTrial(self.space.params(config))
        self.space.suggest(fixed)
        attrs = {CONFIG: config, RESULT: dict(result), "from": source}
        with self._changing():
            if any(t.user_attrs == attrs for t in self.study.get_trials(deepcopy=False)):
                return False
            self.study.add_trial(
                create_trial(
                    values=self._values(result),
                    params=fixed.params,
                    distributions=fixed.distributions,
                    user_attrs=attrs,
                    constraints=self._beyond(result),
                )
            )
        return True

    def tell_stopped_early(self, number: int, result: Mapping[str, Any]) -> None:
        """Ends a trial that was not worth going on with; its learning curve is kept."""
        from optuna.trial import TrialState

        with self._changing():
            if (trial := self._running(number)) is not None:
                trial.set_user_attr(RESULT, dict(result))
                self.study.tell(trial, state=TrialState.PRUNED)

    def tell_failed(self, number: int, failure: str) -> None:
        """Ends a trial that has no result because of its own settings."""
        from optuna.trial import TrialState

        with self._changing():
            if (trial := self._running(number)) is not None:
                trial.set_user_attr(_FAILURE, failure)
                self.study.tell(trial, state=TrialState.FAIL)

    def tell_lost(self, number: int, because: str) -> None:
        """Ends a trial whose worker is gone; its slot waits again, unless that came too often."""
        with self._changing():
            self._lose(number, because)

    def _lose(self, number: int, because: str, counts: bool = True) -> None:
        from optuna.trial import TrialState

        self._asked.pop(number, None)
        trials = self.study.get_trials(deepcopy=False)
        frozen, attrs = trials[number], trials[number].user_attrs
        if frozen.state is not TrialState.RUNNING:
            return
        # A stop may come between any two writes, here as well: each is made once.
        if all(name in attrs.get(RESULT, {}) for name in self.settings.objectives):
            self.study.tell(number, self._values(attrs[RESULT]))
            return
        again = any(t.user_attrs.get(_SLOT) == attrs[_SLOT] for t in trials[number + 1 :])
        lost = int(attrs[_LOST_BEFORE]) + counts
        if lost <= _LOSSES and not again and _FAILURE not in attrs:
            self._enqueue(int(attrs[_SLOT]), _known_params(frozen), lost, because)
        self.study.tell(number, state=TrialState.FAIL)

    def release(self, driver: str, because: str) -> None:
        """Lets go of all trials that a driver runs: their slots wait again."""
        with self._changing():
            for one in self.records():
                if one.state is State.RUNNING and one.driver == driver:
                    self._lose(one.number, because, counts=False)

    def reconcile(self) -> None:
        """Lets go of trials whose driver is gone: their slots wait again."""
        with self._changing():
            beats = {
                key.removeprefix(_BEAT): float(value)
                for key, value in self.study.user_attrs.items()
                if key.startswith(_BEAT)
            }
            for one in self.records():
                if one.state is State.RUNNING and gone(
                    one.driver, beats.get(one.driver), self.folder
                ):
                    self._lose(one.number, "the driver was stopped", counts=False)

    def beat(self, driver: Driver) -> None:
        """Says that a driver is alive."""
        with errors_in_words(self.url):
            self.study.set_user_attr(_BEAT + driver.id, time.time())

    def remembered(self, key: str, value: Any) -> Any:
        """Returns what the study keeps under a key, which is `value` if it keeps nothing."""
        with self._changing():
            if key not in self.study.user_attrs:
                self.study.set_user_attr(key, value)
            return self.study.user_attrs[key]

    def records(self) -> list[Record]:
        """Returns every trial, repeats included, in the order of their numbers."""
        with errors_in_words(self.url):
            trials = self.study.get_trials(deepcopy=False)
        found = []
        for one in trials:
            if _SLOT not in one.user_attrs:
                continue
            attrs, state = one.user_attrs, self._state(one)
            failure = str(attrs.get(_FAILURE, ""))
            if state is State.LOST:
                failure = self._why_lost(one, trials)
            found.append(
                Record(
                    number=one.number,
                    slot=int(attrs[_SLOT]),
                    state=state,
                    config=dict(attrs.get(CONFIG, {})),
                    result=dict(attrs.get(RESULT, {})),
                    failure=failure,
                    driver=str(attrs.get(_DRIVER, "")),
                    began=one.datetime_start.timestamp() if one.datetime_start else 0.0,
                    ended=one.datetime_complete.timestamp() if one.datetime_complete else 0.0,
                    params=dict(one.params),
                )
            )
        return found

    def slots(self) -> list[Record]:
        """Returns the latest trial of each slot, in the order of the slots."""
        latest = {one.slot: one for one in self.records()}
        return [latest[slot] for slot in sorted(latest)]

    @staticmethod
    def _state(trial: FrozenTrial) -> State:
        from optuna.trial import TrialState

        if trial.state is TrialState.FAIL:
            return State.FAILED if _FAILURE in trial.user_attrs else State.LOST
        return {
            TrialState.WAITING: State.WAITING,
            TrialState.RUNNING: State.RUNNING,
            TrialState.COMPLETE: State.DONE,
            TrialState.PRUNED: State.STOPPED_EARLY,
        }[trial.state]

    @staticmethod
    def _why_lost(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
        slot = trial.user_attrs[_SLOT]
        later = [t for t in trials[trial.number + 1 :] if t.user_attrs.get(_SLOT) == slot]
        return str(later[0].user_attrs[_BECAUSE]) if later else "its worker was lost too often"


def _known_params(trial: FrozenTrial) -> dict[str, Any]:
    """Returns what a trial chose, or was told to choose if it was ended before it did."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
