"""The report of an audit: one HTML page with verdicts first, then every number.

The page needs no other file and no script, so that it can be mailed and archived.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts.errors import UserError
from evaluation.comparison import ALPHA
from evaluation.interval_plot import IntervalPlot
from evaluation.number_format import UNITS, interval, largest_size, number, with_unit
from evaluation.results import QUESTIONS, Answer, AuditResult, Finding, Verdict

TEMPLATE = "report_template.html"
# The largest page in bytes that can still be mailed.
LIMIT = 2_000_000
_MOST_DECIDING = 2


@dataclass(frozen=True, slots=True)
class DetailRow:
    """A region or a setting of a finding, as it is shown."""

    name: str
    value: str
    interval: str
    plot: IntervalPlot
    beyond_tolerance: bool


@dataclass(frozen=True, slots=True)
class FindingRow:
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
    plot: IntervalPlot
    details: tuple[DetailRow, ...]

    @property
    def beyond_tolerance(self) -> tuple[str, ...]:
        """The names of the details beyond the tolerance."""
        return tuple(detail.name for detail in self.details if detail.beyond_tolerance)

    @classmethod
    def from_finding(cls, finding: Finding, letters: Mapping[str, str]) -> FindingRow:
        """Returns a finding as text.

        Parameters
        ----------
        letters : yardstick of the table -> its letter.
        """
        unit = UNITS.get(finding.unit, finding.unit)
        numbers = (finding.value, finding.low, finding.high)
        yardsticks = finding.yardsticks
        shift = finding.chance
        # A tolerance of zero belongs to a count, whose plot has a scale of its own.
        tolerance = finding.tolerance or None
        scale = largest_size((*numbers, tolerance or 0.0))

        def shown(value: float) -> str:
            return with_unit(number(value, scale), unit)

        verdict: str = finding.verdict
        if verdict == "not measured" and not math.isnan(finding.value):
            verdict = "reported only"
        return cls(
            finding,
            shown(finding.value),
            interval(*numbers),
            "" if finding.tolerance is None else _tolerance(finding, unit),
            "" if finding.p is None else number(finding.p),
            verdict,
            {k: shown(yardsticks[k]) if k in yardsticks else "" for k in letters},
            # The middle of a plot is where there is no difference.
            IntervalPlot.from_numbers(
                (numbers[0] - shift, numbers[1] - shift, numbers[2] - shift),
                tolerance,
                None,
                {k: v - shift for k, v in yardsticks.items()},
                letters,
            ),
            tuple(_details(finding, tolerance, "" if finding.tolerance == 0 else unit)),
        )


@dataclass(frozen=True, slots=True)
class Section:
    """The answer to a question as it is shown.

    Parameters
    ----------
    letters : yardstick -> the letter that stands for it in the plots.
    deciding : the one or two rows that the verdict depends on most.
    """

    answer: Answer
    letters: Mapping[str, str]
    rows: tuple[FindingRow, ...]
    deciding: tuple[FindingRow, ...]

    @classmethod
    def from_answer(cls, answer: Answer) -> Section:
        """Returns an answer as text."""
        letters = _letters(k for finding in answer.findings for k in finding.yardsticks)
        rows = tuple(FindingRow.from_finding(finding, letters) for finding in answer.findings)
        deciding = [r for r in rows if r.finding.tolerance is not None]
        same = [r for r in deciding if r.finding.verdict == answer.verdict]
        ranked = sorted(same or deciding or rows, key=_importance, reverse=True)
        return cls(answer, letters, rows, tuple(ranked[:_MOST_DECIDING]))


def html(audit: AuditResult, figures: Mapping[str, bytes] = {}) -> str:
    """Returns the page of an audit.

    Parameters
    ----------
    figures : caption -> content of a PNG file.

    Raises
    ------
    UserError : if a figure is not PNG, or the page would be larger than `LIMIT`.
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
        sections=[Section.from_answer(answer) for answer in audit.answers],
        units={finding.unit for answer in audit.answers for finding in answer.findings},
        figures={k: base64.b64encode(v).decode() for k, v in figures.items()},
        about=list(_lines(audit.about)),
        alpha=ALPHA,
        sample=IntervalPlot.from_numbers((1.4, 0.7, 2.1), 1.0, None, {"real": -0.5}, {"real": "R"}),
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


def write(path: Path, audit: AuditResult, figures: Mapping[str, bytes] = {}) -> None:
    """Writes the page of an audit, see `html`; an interruption leaves the old page unchanged."""
    page = html(audit, figures)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def _details(finding: Finding, tolerance: float | None, unit: str) -> Iterator[DetailRow]:
    largest = largest_size(x for numbers in finding.details.values() for x in numbers)
    for name, numbers in finding.details.items():
        yield DetailRow(
            name,
            with_unit(number(numbers[0], largest_size(numbers)), unit),
            interval(*numbers),
            IntervalPlot.from_numbers(numbers, tolerance, largest),
            tolerance is not None and abs(numbers[0]) > tolerance,
        )


def _letters(names: Iterable[str]) -> dict[str, str]:
    """Returns name -> its first letter that no name before it has, or a number."""
    letters: dict[str, str] = {}
    for name in dict.fromkeys(names):
        free = [c for c in name.upper() if c.isalnum() and c not in letters.values()]
        letters[name] = free[0] if free else str(len(letters) + 1)
    return letters


def _tolerance(finding: Finding, unit: str) -> str:
    """Returns the tolerance as text; with `chance`, from which it is measured, unless that is 0."""
    text = with_unit(f"{finding.tolerance:g}", unit)
    return f"{finding.chance:g} \u00b1 {text}" if finding.chance else text


def _importance(row: FindingRow) -> tuple[float, float]:
    """Returns a key that sorts by the volumes needed, then by the size of the difference."""
    finding = row.finding
    size = abs(finding.value - finding.chance)
    size = size / finding.tolerance if finding.tolerance else size
    return float(finding.needed or 0), -1.0 if math.isnan(size) else size


def _headline(audit: AuditResult) -> str:
    """Returns all verdicts in a few short sentences."""

    def questions(verdict: Verdict) -> str:
        return ", ".join(a.question for a in audit.answers if a.verdict == verdict)

    asked = {a.question for a in audit.answers}
    parts = [
        ("Fails", questions("fail")),
        ("Too few volumes to tell", questions("n too small")),
        ("Not measured", questions("not measured")),
        ("Passes", questions("pass")),
        ("Not asked", ", ".join(q for q in QUESTIONS if q not in asked)),
    ]
    return " ".join(f"{verdict}: {which}." for verdict, which in parts if which)


def _lines(about: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields key and value of each entry; the key of an inner entry is the path to it."""
    for key, value in about.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{key} / ")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(v) for v in value)
        else:
            yield f"{prefix}{key}", str(value)
