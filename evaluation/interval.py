"""Confidence intervals over subjects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Interval:
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def jackknife(statistic: Callable[[Rows, Rows], float], n: int, m: int) -> Interval:
    """The value of a two-sample statistic and its interval by leaving out one subject at a time.

    Both groups' subjects vary: their jackknife variances (Efron & Stein 1981) add up.

    Parameters
    ----------
    statistic : (rows of the first group, rows of the second) -> number.
    n, m : sizes of the groups; a group of size 0 is held fixed.
    """
    first, second = np.arange(n), np.arange(m)
    value = statistic(first, second)
    variance = 0.0
    if n > 2:
        variance += _spread([statistic(np.delete(first, i), second) for i in range(n)])
    if m > 2:
        variance += _spread([statistic(first, np.delete(second, i)) for i in range(m)])
    half = _Z95 * math.sqrt(variance)
    return Interval(value, value - half, value + half)


def _spread(left_out: list[float]) -> float:
    values = np.array(left_out)
    return (len(values) - 1) / len(values) * float(((values - values.mean()) ** 2).sum())


def two_sample(
    statistic: Callable[[Any, Any], float], a: NDArray[Any], b: NDArray[Any]
) -> Interval:
    """`jackknife` of a statistic of two arrays whose first axis is subjects."""
    return jackknife(lambda i, j: statistic(a[i], b[j]), len(a), len(b))
