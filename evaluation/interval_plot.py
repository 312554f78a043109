"""Geometry of the small plots in a report: a value, its interval, tolerance and yardsticks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evaluation.number_format import largest_size

_WIDTH, _MARGIN = 180.0, 7.0
# The axis ends at two tolerances on both sides, so that plots below each other can be compared.
_REACH = 2.0
# The least distance between two letters, in pixels.
_LETTER = 8.0


@dataclass(frozen=True, slots=True)
class YardstickMark:
    """The tick of a yardstick on an interval plot.

    Parameters
    ----------
    letter : drawn below the tick.
    name : shown when the pointer is on the tick.
    x : of the tick, in pixels.
    letter_x : of the letter, which is moved aside where another one is.
    beyond : -1 or 1 if the value lies left or right of the axis; 0 if it lies on it.
    """

    letter: str
    name: str
    x: float
    letter_x: float
    beyond: int


@dataclass(frozen=True, slots=True)
class IntervalPlot:
    """A value on a horizontal axis with zero in the middle; all places in pixels from the left.

    Parameters
    ----------
    dot : the value; None: it was not computed.
    beyond : -1 or 1 if the value lies left or right of the axis and is drawn at its end; else 0.
    whisker : the ends of the interval.
    band : the ends of the tolerance; None: there is none, and the axis fits the numbers.
    marks : the yardsticks.
    """

    dot: float | None
    beyond: int
    whisker: tuple[float, float] | None
    band: tuple[float, float] | None
    marks: tuple[YardstickMark, ...] = ()
    width: float = _WIDTH
    zero: float = _WIDTH / 2

    @classmethod
    def from_numbers(
        cls,
        numbers: tuple[float, float, float],
        tolerance: float | None,
        largest: float | None = None,
        yardsticks: Mapping[str, float] | None = None,
        letters: Mapping[str, str] | None = None,
    ) -> IntervalPlot:
        """Returns the plot of a value, low and high.

        Parameters
        ----------
        largest : the number that the axis reaches to where there is no tolerance.
        yardsticks : name -> value.
        letters : name of a yardstick -> its letter.
        """
        value, low, high = numbers
        known = {k: v for k, v in (yardsticks or {}).items() if math.isfinite(v)}
        # The axis reaches at most twice as far as the value's interval. A distant yardstick would
        # otherwise leave no room for it.
        fitting = min(largest_size((*numbers, *known.values())), 2 * largest_size(numbers))
        unit = tolerance or (largest or fitting) / _REACH

        def place(number: float) -> float:
            kept = min(max(number / unit, -_REACH), _REACH)
            return round(_WIDTH / 2 + kept * (_WIDTH / 2 - _MARGIN) / _REACH, 1)

        def beyond(number: float) -> int:
            return int(math.copysign(abs(number / unit) > _REACH * (1 + 1e-9), number))

        ticks = [(place(v), (letters or {}).get(k, k), k, beyond(v)) for k, v in known.items()]
        return cls(
            dot=None if math.isnan(value) else place(value),
            beyond=beyond(value),
            whisker=None if math.isnan(low) or math.isnan(high) else (place(low), place(high)),
            band=(place(-tolerance), place(tolerance)) if tolerance else None,
            marks=tuple(_marks(sorted(ticks))),
        )


def _marks(ticks: Sequence[tuple[float, str, str, int]]) -> Iterator[YardstickMark]:
    """Yields marks from left to right, with letters moved so that they do not overlap.

    Parameters
    ----------
    ticks : (x, letter, name, beyond), sorted.
    """
    letter_x = [x for x, *_ in ticks]
    for i in range(1, len(letter_x)):
        letter_x[i] = max(letter_x[i], letter_x[i - 1] + _LETTER)
    edge = _WIDTH - _MARGIN / 2
    for i in reversed(range(len(letter_x))):
        letter_x[i] = min(letter_x[i], edge)
        edge = letter_x[i] - _LETTER
    for (x, letter, name, beyond), place in zip(ticks, letter_x, strict=True):
        yield YardstickMark(letter, name, x, round(place, 1), beyond)
