"""A trial as the study keeps it, and what can become of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from training.search.space import Config


class State(StrEnum):
    """What became of a slot."""

    WAITING = "to be tried"
    RUNNING = "running"
    DONE = "done"
    STOPPED_EARLY = "stopped early"
    FAILED = "failed"
    LOST = "to be repeated"


# A slot in one of these states is not tried again.
OVER = (State.DONE, State.STOPPED_EARLY, State.FAILED)


@dataclass(frozen=True, slots=True)
class Record:
    """A trial as the study keeps it.

    Parameters
    ----------
    number : of the trial in the study.
    slot : which of the trials that were asked for it is.
    config : what was chosen; empty before that.
    result : see `training.search.trial.Result`, as plain values.
    failure : why there is no result.
    driver : who runs it, or ran it.
    began, ended : seconds since the epoch.
    params : the choices as the sampler knows them.
    """

    number: int
    slot: int
    state: State
    config: Config
    result: dict[str, Any]
    failure: str
    driver: str
    began: float
    ended: float
    params: dict[str, Any] = field(default_factory=dict)
