"""Subjects side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from cohort.threads import each


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_threads_are_as_before(threads: int) -> None:
    late = threading.Event()

    def work(i: int) -> int:
        if i == 0 and threads > 1:
            late.wait(5)  # the others are done first
        late.set()
        return i * i

    assert list(each(work, 20)) == [i * i for i in range(20)]
    assert torch.get_num_threads() == threads


def test_no_more_is_begun_than_is_soon_taken(threads: int) -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        return i

    results = each(work, 1000)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert len(begun) < 20
    assert torch.get_num_threads() == threads


def test_an_error_is_that_of_the_work(threads: int) -> None:
    def work(i: int) -> int:
        if i == 3:
            raise ValueError("the third")
        return i

    with pytest.raises(ValueError, match="the third"):
        list(each(work, 10))
    assert torch.get_num_threads() == threads
