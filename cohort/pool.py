"""Run a job per scan in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from contracts.console import say

Job = TypeVar("Job")
Result = TypeVar("Result")

# What one worker needs for a scan of 100 x 100 x 66 voxels and 66 volumes.
_WORKER_BYTES = 1.5e9


def default_workers() -> int:
    """One per core, fewer where memory is short."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, int(memory / _WORKER_BYTES)))


def run(
    work: Callable[[Job], Result],
    jobs: Mapping[str, Job],
    workers: int,
    lost: Callable[[str], Result],
) -> Iterator[tuple[str, Result]]:
    """`work` on each job, by key, as they finish.

    Parameters
    ----------
    lost : the result of a job whose process died, as when memory runs out. The jobs beside it
        are run again, each in a process of its own.
    """
    if workers == 1 or len(jobs) < 2:
        for key, job in jobs.items():
            yield key, work(job)
        return
    left = dict(jobs)
    try:
        for key, result in _pool(work, jobs, workers):
            del left[key]
            yield key, result
    except BrokenProcessPool:
        say("a process died; going on with one scan at a time")
        for key, job in left.items():
            try:
                yield from _pool(work, {key: job}, 1)
            except BrokenProcessPool:
                yield key, lost(key)


def _pool(
    work: Callable[[Job], Result], jobs: Mapping[str, Job], workers: int
) -> Iterator[tuple[str, Result]]:
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_single_thread,
    )
    try:
        futures = {pool.submit(work, job): key for key, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _single_thread() -> None:
    """One BLAS thread per process: scans run side by side."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
