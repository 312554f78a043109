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
from types import FrameType

# A driver on another host is taken for gone when it has not been heard of for so long.
_GONE_AFTER_S = 120.0
_BEAT_EVERY_S = 20.0


@dataclass(frozen=True, slots=True)
class Driver:
    """A process that runs trials.

    Parameters
    ----------
    id : host, process and when that was started, e.g. ``node3/4711/1790.12``: a process number may
        come again, in containers above all.
    """

    id: str

    @classmethod
    def this(cls) -> Driver:
        """Returns the driver of this process."""
        return cls(f"{socket.gethostname()}/{os.getpid()}/{_started(os.getpid())}")

    @contextmanager
    def beating(self, beat: Callable[[Driver], None]) -> Iterator[None]:
        """Calls `beat` every now and then from a thread; an error of it is tried again."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(_BEAT_EVERY_S):
                try:
                    beat(self)
                except Exception:
                    continue

        beat(self)
        thread = threading.Thread(target=work, daemon=True, name="beat")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _started(process: int) -> str:
    """Returns when a process was started, or nothing if there is none of that number."""
    import psutil

    try:
        return f"{psutil.Process(process).create_time():.2f}"
    except psutil.Error:
        return ""


def gone(driver: str, beat: float | None) -> bool:
    """Returns whether a driver does not run any more.

    Parameters
    ----------
    driver : `Driver.id`; empty where one was stopped before it could write that.
    beat : when it said last that it is alive, in seconds since the epoch.
    """
    if not driver:
        return True
    host, process, started = driver.split("/")
    if host == socket.gethostname():
        return _started(int(process)) != started
    return beat is None or time.time() - beat > _GONE_AFTER_S


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
