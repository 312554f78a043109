"""Row-by-row files: whole or not there, and nothing is done twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cohort import row_cache
from contracts.errors import UserError

SHAPE = (5, 2, 3)


def value(i: int) -> np.ndarray:
    return np.full(SHAPE[1:], i + 0.5, dtype=np.float32)


def test_rows_are_read_as_they_were_made(tmp_path: Path) -> None:
    mapped = row_cache.rows(tmp_path / "deep" / "a.npy", SHAPE, value, "test")
    np.testing.assert_array_equal(mapped, np.stack([value(i) for i in range(5)]))
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable


def test_a_whole_file_is_not_made_again(tmp_path: Path) -> None:
    row_cache.rows(tmp_path / "a.npy", SHAPE, value, "test")

    def never(i: int) -> np.ndarray:
        raise AssertionError(i)

    row_cache.rows(tmp_path / "a.npy", SHAPE, never, "test")


@pytest.mark.parametrize("torn", [0, 7])
def test_a_stop_keeps_whole_rows(tmp_path: Path, torn: int) -> None:
    path, made = tmp_path / "a.npy", []

    def stops(i: int) -> np.ndarray:
        if i == 3:
            raise KeyboardInterrupt
        return value(i)

    with pytest.raises(KeyboardInterrupt):
        row_cache.rows(path, SHAPE, stops, "test")
    assert not path.exists()
    with path.with_name("a.npy.partial").open("ab") as stream:
        stream.write(b"x" * torn)  # killed in the middle of a row

    def counts(i: int) -> np.ndarray:
        made.append(i)
        return value(i)

    mapped = row_cache.rows(path, SHAPE, counts, "test")
    np.testing.assert_array_equal(mapped, np.stack([value(i) for i in range(5)]))
    assert made == [3, 4]


def test_too_small_a_disk_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GB are needed"):
        row_cache.rows(tmp_path / "a.npy", (10**9, 10**6), value, "test")


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    made: list[int] = []

    def slow(i: int) -> np.ndarray:
        made.append(i)
        time.sleep(0.01)
        return value(i)

    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: row_cache.rows(tmp_path / "a.npy", SHAPE, slow, "test"), range(4))
        )
    assert sorted(made) == list(range(5))
    for one in found:
        np.testing.assert_array_equal(one, np.stack([value(i) for i in range(5)]))
