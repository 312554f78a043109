"""Numbers as text for readers: three significant digits, units, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSING = "not computed"
UNITS = {"um2/s": "\N{MICRO SIGN}m\N{SUPERSCRIPT TWO}/s", "x 1e-3": "\N{MULTIPLICATION SIGN} 10⁻³"}

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "\N{MINUS SIGN}"
# A number this much smaller than those beside it is shown as zero.
_NEGLIGIBLE = 5e-5


def number(value: float, scale: float = 0.0) -> str:
    """Returns a number with three significant digits.

    Parameters
    ----------
    scale : the size of the numbers beside it. A number that is four orders of magnitude smaller
        is shown as 0, so that 1e-17 in [-1, 1] is not shown as a power of ten.
    """
    if math.isnan(value):
        return MISSING
    sign = _MINUS if value < 0 else ""
    if math.isinf(value):
        return f"{sign}\N{INFINITY}"
    if value == 0 or abs(value) < _NEGLIGIBLE * scale:
        return "0"
    digits, power = f"{abs(value):.2e}".split("e")
    exponent = int(power)
    if not -4 <= exponent < 6:
        ten = str(exponent).translate(_SUPERSCRIPT)
        return f"{sign}{digits} \N{MULTIPLICATION SIGN} 10{ten}"
    # The rounded digits are formatted and not the value, so that 0.1235 and 1235 round alike.
    return f"{sign}{float(digits) * 10.0**exponent:.{max(2 - exponent, 0)}f}"


def with_unit(text: str, unit: str) -> str:
    """Returns a number with its unit; nothing is added to `MISSING` or for an empty unit."""
    return text if text == MISSING or not unit else f"{text} {unit}"


def interval(value: float, low: float, high: float) -> str:
    """Returns ``[low, high]``, or "" if there is no interval, as for counts."""
    if math.isnan(low) or math.isnan(high) or low == high:
        return ""
    scale = largest_size((value, low, high))
    return f"[{number(low, scale)}, {number(high, scale)}]"


def largest_size(numbers: Iterable[float]) -> float:
    """Returns the absolute value of the largest finite number, or 1 if all are zero."""
    return max((abs(x) for x in numbers if math.isfinite(x)), default=0.0) or 1.0
