"""Work that nobody waits for any more ends at the next step and gives the turn back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.config import Dim
from models.generator import Generator
from serving import service
from serving.messages import sample_request
from serving.sampling import Model, folder_model

REQUEST = sample_request({"age": 65, "sex": "F"})
_FOR_EVER = 100_000


class Caller:
    """A request whose sender may go away."""

    def __init__(self) -> None:
        self.gone = False

    async def is_disconnected(self) -> bool:
        return self.gone


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps that were done by a sampler that would go on for minutes."""
    done: list[int] = []

    def sample(self: Generator, conditions: Any, seeds: Any, count: int, on_step: Any) -> Any:
        for step in range(_FOR_EVER):
            time.sleep(0.002)
            done.append(step)
            on_step(step + 1, _FOR_EVER)

    monkeypatch.setattr(Generator, "sample", sample)
    monkeypatch.setattr(service, "_LOOK_EVERY_S", 0.01)
    return done


@pytest.fixture
def model(folders: dict[Dim, Path]) -> Model:
    return folder_model(folders["3d"])


async def _until(steps: list[int], count: int) -> None:
    while len(steps) < count:
        await asyncio.sleep(0.005)


def test_a_caller_that_goes_away_stops_the_work(model: Model, steps: list[int]) -> None:
    caller = Caller()

    async def scene() -> None:
        work = asyncio.create_task(
            service._watched(model, REQUEST, SimpleNamespace(request=caller))
        )
        await _until(steps, 3)
        caller.gone = True
        with pytest.raises(service.Stopped):
            await work

    asyncio.run(scene())
    assert 3 <= len(steps) < _FOR_EVER


def test_a_caller_that_left_the_queue_starts_nothing(model: Model, steps: list[int]) -> None:
    caller = Caller()
    caller.gone = True
    with pytest.raises(service.Stopped):
        asyncio.run(service._watched(model, REQUEST, SimpleNamespace(request=caller)))
    assert steps == []


def test_a_timeout_returns_only_when_the_thread_is_done(model: Model, steps: list[int]) -> None:
    async def scene() -> int:
        context = SimpleNamespace(request=Caller())
        work = asyncio.create_task(service._watched(model, REQUEST, context))
        await _until(steps, 3)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        ended = len(steps)
        await asyncio.sleep(0.05)
        return ended

    assert asyncio.run(scene()) == len(steps)
