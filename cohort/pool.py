"""Work on scans in processes side by side, of which any may die.

A process that dies, as when memory runs out, must cost at most its own scan. The executors of
the standard library and of joblib do not give that: `ProcessPoolExecutor` breaks as a whole when
one of its processes dies, and so does joblib's loky (tried with joblib 1.6: one task of eight that
ended its process left four of the other seven without a result, and no word of which it was).
Here each worker is an executor of one process, so that its death concerns one scan.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from contracts.console import say

Task = TypeVar("Task")
Result = TypeVar("Result")

# Memory that one worker needs for a scan of 100 x 100 x 66 voxels and 66 volumes.
_WORKER_BYTES = 1.5e9


def default_workers() -> int:
    """Return one worker per core, or fewer where memory is short."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(os.cpu_count() or 1, int(memory / _WORKER_BYTES)))


def run(
    work: Callable[[Task], Result],
    tasks: Mapping[str, Task],
    workers: int,
    lost: Callable[[str], Result],
) -> Iterator[tuple[str, Result]]:
    """Call `work` on each task and yield its key and result as soon as it is done.

    A task whose process died is tried once more, alone, after all others.

    Parameters
    ----------
    work : a function at the top of a module, so that other processes can import it.
    tasks : task by key.
    workers : number of processes; with 1, or a single task, all runs in this process.
    lost : gives the result of a task whose process died twice, from its key.
    """
    if workers == 1 or len(tasks) < 2:
        for key, task in tasks.items():
            yield key, work(task)
        return
    died: list[str] = []
    yield from _side_by_side(work, tasks, min(workers, len(tasks)), died)
    if died:
        say(f"{len(died)} processes died; their tasks are tried again, one at a time")
    for key in died:
        again: list[str] = []
        yield from _side_by_side(work, {key: tasks[key]}, 1, again)
        if again:
            yield key, lost(key)


def _side_by_side(
    work: Callable[[Task], Result], tasks: Mapping[str, Task], workers: int, died: list[str]
) -> Iterator[tuple[str, Result]]:
    """Yield results as `run` does; the keys of tasks whose process died are added to `died`."""
    waiting = list(tasks.items())[::-1]
    running: dict[Future[Result], tuple[str, ProcessPoolExecutor]] = {}
    idle = [_one_process() for _ in range(workers)]
    try:
        while waiting or running:
            while idle and waiting:
                key, task = waiting.pop()
                executor = idle.pop()
                try:
                    running[executor.submit(work, task)] = key, executor
                except BrokenProcessPool:  # Its process died while it had nothing to do.
                    waiting.append((key, task))
                    idle.append(_one_process())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                key, executor = running.pop(future)
                broken = isinstance(future.exception(), BrokenProcessPool)
                idle.append(_one_process() if broken else executor)
                if broken:
                    died.append(key)
                else:
                    yield key, future.result()
    finally:
        for executor in [*idle, *(executor for _, executor in running.values())]:
            executor.shutdown(wait=True, cancel_futures=True)


def _one_process() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_single_thread)


def _single_thread() -> None:
    """Limit BLAS to one thread, because the processes run side by side."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
