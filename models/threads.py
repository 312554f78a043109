"""Work on one subject after another, on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

# Results that wait to be taken, per thread.
_WAITING = 2


def each(work: Callable[[int], T], count: int) -> Iterator[T]:
    """work(0), work(1) ... work(count - 1), in this order, on as many threads as torch has.

    Operations on one small volume are too short to be shared among cores.
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
        # New threads begin with the number that was set last anywhere.
        torch.set_num_threads(threads)
