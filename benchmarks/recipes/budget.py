"""How long a contestant may train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """CPU seconds of this process, or a number of steps for a run that has to repeat exactly.

    Iterating gives step numbers as long as one more step, as long as the longest so far, fits;
    the clock starts with the first. At least one step is given.
    """

    seconds: float = float("inf")
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.seconds == float("inf") and self.steps is None:
            raise ValueError("expected seconds or steps")

    def share(self, part: float) -> Budget:
        """A budget of this part of the seconds and of the steps."""
        steps = None if self.steps is None else max(1, round(part * self.steps))
        return Budget(part * self.seconds, steps)

    def __iter__(self) -> Iterator[int]:
        begun = last = time.process_time()
        longest, step = 0.0, 0
        while step == 0 or last - begun + longest <= self.seconds:
            if step == self.steps:
                return
            yield step
            now = time.process_time()
            longest, last, step = max(longest, now - last), now, step + 1
