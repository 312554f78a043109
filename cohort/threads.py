"""An ordered parallel map over subjects, with one thread of torch each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

# Finished results that may wait to be taken, per thread: memory must not grow with the cohort.
# (joblib's generator goes on computing whether or not its results are taken.)
_WAITING = 2


def each(work: Callable[[int], T], count: int) -> Iterator[T]:
    """Yields work(0), work(1) ... work(count - 1) in this order, from as many threads as torch has.

    Operations on one small volume are too short to be shared among cores, so that subjects are
    worked on side by side, each with one thread of torch.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, range(count))
        return
    waiting: deque[Future[T]] = deque()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for i in range(count):
                waiting.append(pool.submit(work, i))
                if len(waiting) > _WAITING * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        # A new thread begins with the number that was set last in any thread.
        torch.set_num_threads(threads)
