"""An audit as one HTML page that needs nothing beside it: verdicts first, then every number."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import UserError
from evaluation.finding import QUESTIONS, Answer, Audit, Finding, Verdict

TEMPLATE = "report_template.html"
# Bytes; a page that can still be mailed.
LIMIT = 2_000_000
MISSING = "not computed"

_UNITS = {"um2/s": "\N{MICRO SIGN}m\N{SUPERSCRIPT TWO}/s", "x 1e-3": "\N{MULTIPLICATION SIGN} 10⁻³"}
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "\N{MINUS SIGN}"

# A strip is drawn in tolerances, so that strips below each other can be compared by eye.
_WIDTH, _MARGIN, _REACH, _LETTER = 180.0, 7.0, 2.0, 8.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A yardstick on a strip: a tick at `x`, its letter at `at`, `name` for the pointer.

    `beyond` as of the strip.
    """

    letter: str
    name: str
    x: float
    at: float
    beyond: int


@dataclass(frozen=True, slots=True)
class Strip:
    """A value on its axis, in pixels from the left; zero is in the middle.

    Parameters
    ----------
    band : from and to of the tolerance; None: there is none and the axis has a scale of its own.
    whisker : ends of the interval.
    beyond : -1, 1: the value lies left or right of the axis and is drawn at its end.
    """

    dot: float | None
    beyond: int
    whisker: tuple[float, float] | None
    band: tuple[float, float] | None
    marks: tuple[Mark, ...] = ()
    width: float = _WIDTH
    zero: float = _WIDTH / 2

    @classmethod
    def of(
        cls,
        numbers: tuple[float, float, float],
        tolerance: float | None,
        largest: float | None = None,
        yardsticks: Mapping[str, float] | None = None,
        letters: Mapping[str, str] | None = None,
    ) -> Strip:
        """The strip of a value, low and high.

        Parameters
        ----------
        largest : number that the axis has to hold where there is no tolerance.
        """
        value, low, high = numbers
        known = {k: v for k, v in (yardsticks or {}).items() if math.isfinite(v)}
        # A yardstick far off must not squeeze the value into the middle.
        fit = min(_largest((*numbers, *known.values())), 2 * _largest(numbers))
        unit = tolerance or (largest or fit) / _REACH

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
            marks=tuple(_spread(sorted(ticks))),
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One region or setting of a finding's details."""

    name: str
    value: str
    interval: str
    strip: Strip
    beyond: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A finding as it is shown.

    Parameters
    ----------
    yardsticks : in the order of the table's columns; "" where the finding has none.
    """

    finding: Finding
    value: str
    interval: str
    tolerance: str
    p: str
    verdict: str
    yardsticks: Mapping[str, str]
    strip: Strip
    parts: tuple[Part, ...]

    @property
    def beyond(self) -> tuple[str, ...]:
        """Names of the parts beyond the tolerance."""
        return tuple(part.name for part in self.parts if part.beyond)

    @classmethod
    def of(cls, finding: Finding, letters: Mapping[str, str]) -> Row:
        """How a finding is shown; `letters` stand for the yardsticks of its table."""
        unit = _UNITS.get(finding.unit, finding.unit)
        numbers = (finding.value, finding.low, finding.high)
        yardsticks = finding.yardsticks
        # Where nothing is tolerated things are counted, and details say what each one is like.
        tolerance = finding.tolerance or None
        scope = _largest((*numbers, tolerance or 0.0))

        def shown(value: float) -> str:
            return with_unit(number(value, scope), unit)

        verdict: str = finding.verdict
        if verdict == "not measured" and not math.isnan(finding.value):
            verdict = "reported only"
        return cls(
            finding,
            shown(finding.value),
            _interval(*numbers),
            "" if finding.tolerance is None else with_unit(f"{finding.tolerance:g}", unit),
            "" if finding.p is None else number(finding.p),
            verdict,
            {k: shown(yardsticks[k]) if k in yardsticks else "" for k in letters},
            Strip.of(numbers, tolerance, None, yardsticks, letters),
            tuple(_parts(finding, tolerance, "" if finding.tolerance == 0 else unit)),
        )


@dataclass(frozen=True, slots=True)
class Section:
    """The answer to a question as it is shown.

    Parameters
    ----------
    letters : yardstick -> the letter that stands for it on the strips.
    deciding : the one or two rows that the verdict hangs on.
    """

    answer: Answer
    letters: Mapping[str, str]
    rows: tuple[Row, ...]
    deciding: tuple[Row, ...]

    @classmethod
    def of(cls, answer: Answer) -> Section:
        """How an answer is shown."""
        letters = _letters(k for finding in answer.findings for k in finding.yardsticks)
        rows = tuple(Row.of(finding, letters) for finding in answer.findings)
        same = [r for r in rows if r.finding.tolerance is not None]
        same = [r for r in same if r.finding.verdict == answer.verdict] or same or list(rows)
        deciding = tuple(sorted(same, key=_weight, reverse=True)[:2])
        return cls(answer, letters, rows, deciding)


def html(audit: Audit, figures: Mapping[str, bytes] = {}) -> str:
    """The page of an audit.

    Parameters
    ----------
    figures : caption -> PNG.

    Raises
    ------
    UserError : if a figure is no PNG, or the page would be larger than `LIMIT`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    for caption, image in figures.items():
        if not image.startswith(b"\x89PNG\r\n\x1a\n"):
            raise UserError(f"figure '{caption}' of the report: expected PNG, found {image[:8]!r}")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        audit=audit,
        headline=_headline(audit),
        sections=[Section.of(answer) for answer in audit.answers],
        units={finding.unit for answer in audit.answers for finding in answer.findings},
        figures={k: base64.b64encode(v).decode() for k, v in figures.items()},
        about=list(_lines(audit.about)),
        sample=Strip.of((1.4, 0.7, 2.1), 1.0, None, {"real": -0.5}, {"real": "R"}),
    )
    size = len(page.encode())
    if size > LIMIT:
        images = sum(4 * len(image) // 3 for image in figures.values())
        raise UserError(
            f"the report of '{audit.name}' would take {size / 1e6:.2f} MB, at most "
            f"{LIMIT / 1e6:.0f} MB are allowed: its {len(figures)} figures take "
            f"{images / 1e6:.2f} MB, make them fewer or smaller"
        )
    return page


def write(path: Path, audit: Audit, figures: Mapping[str, bytes] = {}) -> None:
    """Write the page of an audit; a stop in the middle leaves no half file behind."""
    page = html(audit, figures)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def number(value: float, scope: float = 0.0) -> str:
    """Three significant digits.

    Parameters
    ----------
    scope : size of the numbers beside it; what is a ten-thousandth of that is rounded away, so
        that 1e-17 within [-1, 1] reads 0.
    """
    if math.isnan(value):
        return MISSING
    sign = _MINUS if value < 0 else ""
    if math.isinf(value):
        return f"{sign}\N{INFINITY}"
    if value == 0 or abs(value) < 5e-5 * scope:
        return "0"
    digits, power = f"{abs(value):.2e}".split("e")
    exponent = int(power)
    if not -4 <= exponent < 6:
        ten = str(exponent).translate(_SUPERSCRIPT)
        return f"{sign}{digits} \N{MULTIPLICATION SIGN} 10{ten}"
    # Through the digits, not round(): 0.1235 and 1235 then end alike.
    return f"{sign}{float(digits) * 10.0**exponent:.{max(2 - exponent, 0)}f}"


def with_unit(text: str, unit: str) -> str:
    """A number with its unit, where it is one and has one."""
    return text if text == MISSING or not unit else f"{text} {unit}"


def _interval(value: float, low: float, high: float) -> str:
    """[low, high]; nothing for what is counted, or where there is no interval."""
    if math.isnan(low) or math.isnan(high) or low == high:
        return ""
    scope = _largest((value, low, high))
    return f"[{number(low, scope)}, {number(high, scope)}]"


def _parts(finding: Finding, tolerance: float | None, unit: str) -> Iterator[Part]:
    shared = _largest(x for numbers in finding.details.values() for x in numbers)
    for name, numbers in finding.details.items():
        yield Part(
            name,
            with_unit(number(numbers[0], _largest(numbers)), unit),
            _interval(*numbers),
            Strip.of(numbers, tolerance, shared),
            tolerance is not None and abs(numbers[0]) > tolerance,
        )


def _largest(numbers: Iterable[float]) -> float:
    """Size of the largest finite number; 1 if all are zero."""
    return max((abs(x) for x in numbers if math.isfinite(x)), default=0.0) or 1.0


def _spread(ticks: Sequence[tuple[float, str, str, int]]) -> Iterator[Mark]:
    """Marks from left to right, letters moved as far as they need to stand side by side."""
    at = [x for x, *_ in ticks]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + _LETTER)
    edge = _WIDTH - _MARGIN / 2
    for i in reversed(range(len(at))):
        at[i] = min(at[i], edge)
        edge = at[i] - _LETTER
    for (x, letter, name, beyond), place in zip(ticks, at, strict=True):
        yield Mark(letter, name, x, round(place, 1), beyond)


def _letters(names: Iterable[str]) -> dict[str, str]:
    """A letter for each name, as far as it goes one of its own."""
    out: dict[str, str] = {}
    for name in dict.fromkeys(names):
        own = [c for c in name.upper() if c.isalnum() and c not in out.values()]
        out[name] = own[0] if own else str(len(out) + 1)
    return out


def _weight(row: Row) -> tuple[float, float]:
    """What a verdict hangs on most: the most volumes needed, else the most tolerances."""
    finding = row.finding
    size = abs(finding.value) / finding.tolerance if finding.tolerance else abs(finding.value)
    return float(finding.needed or 0), -1.0 if math.isnan(size) else size


def _headline(audit: Audit) -> str:
    """All verdicts in a sentence or two."""

    def those(verdict: Verdict) -> str:
        return ", ".join(a.question for a in audit.answers if a.verdict == verdict)

    unasked = [q for q in QUESTIONS if q not in {a.question for a in audit.answers}]
    said = [
        ("Fails", those("fail")),
        ("Too few volumes to tell", those("n too small")),
        ("Not measured", those("not measured")),
        ("Passes", those("pass")),
        ("Not asked", ", ".join(unasked)),
    ]
    return " ".join(f"{what}: {which}." for what, which in said if which)


def _lines(about: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """What is said about the sets, one line each; inner mappings by the path to them."""
    for key, value in about.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{before}{key} / ")
        elif isinstance(value, list | tuple):
            yield f"{before}{key}", ", ".join(str(v) for v in value)
        else:
            yield f"{before}{key}", str(value)
