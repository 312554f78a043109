"""A process that dies costs its own task only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cohort import pool


def _square(number: int) -> int:
    if number == 13:
        os._exit(1)  # The kernel ends a process that uses too much memory in this way.
    if number == 17:
        raise ValueError("an error is no death")
    return number * number


def _dies_once(marker: str) -> str:
    """End the process at the first call."""
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(1)
    return "done"


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_gives_its_result(workers: int) -> None:
    tasks = {str(n): n for n in (2, 3, 4)}
    assert dict(pool.run(_square, tasks, workers, lambda key: -1)) == {"2": 4, "3": 9, "4": 16}


@pytest.mark.parametrize("dying", [("13a",), ("13a", "13b", "13c")])
def test_a_dying_process_costs_its_own_task_only(
    dying: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = {"2": 2, **dict.fromkeys(dying, 13), "4": 4, "5": 5}
    expected = {"2": 4, **dict.fromkeys(dying, -1), "4": 16, "5": 25}
    assert dict(pool.run(_square, tasks, 2, lambda key: -1)) == expected
    assert f"{len(dying)} processes died" in capsys.readouterr().err


def test_a_task_whose_process_died_is_tried_again(tmp_path: Path) -> None:
    tasks = {name: str(tmp_path / name) for name in ("a", "b")}
    found = dict(pool.run(_dies_once, tasks, 2, lambda key: "lost"))
    assert found == {"a": "done", "b": "done"}


def test_an_error_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="no death"):
        dict(pool.run(_square, {"2": 2, "17": 17}, 2, lambda key: -1))


def test_there_is_at_least_one_worker() -> None:
    assert 1 <= pool.default_workers() <= (os.cpu_count() or 1)
