"""A process that dies costs its own job only."""

from __future__ import annotations

import os

import pytest

from cohort import pool


def _square(number: int) -> int:
    if number == 13:
        os._exit(1)  # as the kernel ends a process that uses too much memory
    return number * number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_gives_its_result(workers: int) -> None:
    jobs = {str(n): n for n in (2, 3, 4)}
    assert dict(pool.run(_square, jobs, workers, lambda key: -1)) == {"2": 4, "3": 9, "4": 16}


def test_a_dying_process_costs_its_own_job_only() -> None:
    jobs = {str(n): n for n in (2, 13, 4)}
    assert dict(pool.run(_square, jobs, 2, lambda key: -1)) == {"2": 4, "13": -1, "4": 16}


def test_there_is_at_least_one_worker() -> None:
    assert 1 <= pool.default_workers() <= (os.cpu_count() or 1)
