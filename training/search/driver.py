"""The process that runs trials of a study, and whether it is still alive."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from uuid import uuid4

from filelock import FileLock, Timeout

# A driver on another host is taken for gone when it has not been heard of for so long.
_GONE_AFTER_S = 120.0
_BEAT_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that runs trials.

    Parameters
    ----------
    id : host, process number and a random part, e.g. ``node3-4711-1a2b3c4d``: a process number may
        come again, in containers above all.
    """

    id: str

    @classmethod
    def new(cls) -> Driver:
        """Returns a driver of this process."""
        return cls(f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}")

    @contextmanager
    def alive(self, folder: Path, beat: Callable[[Driver], None]) -> Iterator[None]:
        """Tells others that this driver is alive: by a lock that ends with the process, and for
        other hosts by calling `beat` now and then from a thread.

        Parameters
        ----------
        folder : of the study.
        beat : an error of it is passed over; it is called again later.
        """
        over = threading.Event()

        def work() -> None:
            while not over.wait(_BEAT_EVERY_S):
                try:
                    beat(self)
                except Exception:
                    continue  # the storage may be away for a minute

        path = _lock_file(folder, self.id)
        path.parent.mkdir(exist_ok=True)
        with FileLock(path):
            beat(self)
            thread = threading.Thread(target=work, daemon=True, name="beat")
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
        path.unlink(missing_ok=True)


def gone(driver: str, beat: float | None, folder: Path) -> bool:
    """Returns whether a driver does not run any more.

    On its own host the lock tells, which the kernel lets go of when a process ends; from another
    host, the time of the last beat.

    Parameters
    ----------
    driver : `Driver.id`; empty where one was stopped before it could write that.
    beat : when it said last that it is alive, in seconds since the epoch.
    folder : of the study.
    """
    if driver.rpartition("-")[0].rpartition("-")[0] != socket.gethostname():
        return not driver or beat is None or time.time() - beat > _GONE_AFTER_S
    path = _lock_file(folder, driver)
    if not path.exists():
        return True
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def _lock_file(folder: Path, driver: str) -> Path:
    return folder / "drivers" / f"{driver}.lock"


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns SIGTERM, by which Slurm and Kubernetes end a job, into what Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
