"""What an audit says: findings, the answer to a question, the audit of a cohort."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

SCHEMA = 1

Question = Literal["fidelity", "diversity", "anatomy", "privacy", "utility"]
QUESTIONS: tuple[Question, ...] = ("fidelity", "diversity", "anatomy", "privacy", "utility")
Verdict = Literal["pass", "fail", "n too small", "not measured"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One number of an audit beside its yardsticks.

    Parameters
    ----------
    name : key, e.g. ``kernel_distance``.
    label : what a reader is shown.
    unit : of value, interval, tolerance and yardsticks; "" for a number without unit.
    value, low, high : estimate, zero where synthetic and real do not differ unless the label
        says otherwise, and its 95 % interval.
    tolerance : a difference of this size does not matter; None: reported, decides nothing.
    p : permutation p-value, adjusted for all that decides the same question.
    verdict : fail: differs beyond chance and beyond the tolerance. ``n too small``: a difference
        of three tolerances could have been missed. ``not measured``: reported only.
    needed : volumes per side that would do, where n is too small.
    yardsticks : the same number for other sets, e.g. ``real``, ``gaussian``, ``copies``.
    details : per region or per setting, where the finding sums several up.
    """

    name: str
    label: str
    unit: str
    value: float
    low: float
    high: float
    tolerance: float | None = None
    p: float | None = None
    verdict: Verdict = "not measured"
    needed: int | None = None
    yardsticks: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one question.

    Parameters
    ----------
    words : the verdict in a sentence.
    """

    question: Question
    verdict: Verdict
    words: str
    findings: tuple[Finding, ...]

    def finding(self, name: str) -> Finding:
        """The finding called `name`; KeyError if there is none."""
        for found in self.findings:
            if found.name == name:
                return found
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Audit:
    """What a set of synthetic maps is worth.

    Parameters
    ----------
    name : of the synthetic set.
    n : volumes of each set, e.g. ``{"synthetic": 64, "test": 36, "train": 86}``.
    answers : one per question, in the order of `QUESTIONS`.
    about : where the sets come from: folders, digests, settings, seed.
    """

    name: str
    n: Mapping[str, int]
    answers: tuple[Answer, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, question: Question) -> Answer:
        """The answer to `question`; KeyError if it was not asked."""
        for one in self.answers:
            if one.question == question:
                return one
        raise KeyError(question)

    def with_findings(self, question: Question, more: Sequence[Finding]) -> Audit:
        """The audit with more that was measured for a question; its verdict stays."""
        answers = tuple(
            replace(a, findings=(*a.findings, *more)) if a.question == question else a
            for a in self.answers
        )
        return replace(self, answers=answers)

    @property
    def failed(self) -> tuple[Question, ...]:
        """Questions whose verdict is fail."""
        return tuple(a.question for a in self.answers if a.verdict == "fail")

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `schema` rises when a key changes its meaning or goes."""
        plain: dict[str, Any] = _without_nan({"schema": SCHEMA, **asdict(self)})
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Audit:
        """Inverse of `to_json`.

        Raises
        ------
        ValueError : if the schema is another one.
        """
        if data["schema"] != SCHEMA:
            raise ValueError(f"audit schema {data['schema']}, expected {SCHEMA}: audit again")
        answers = []
        for one in data["answers"]:
            findings = tuple(_finding(f) for f in one["findings"])
            answers.append(Answer(**{**one, "findings": findings}))
        return cls(data["name"], data["n"], tuple(answers), data["about"])


def _finding(data: Mapping[str, Any]) -> Finding:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return Finding(
        **{
            **data,
            **{k: number(data[k]) for k in ("value", "low", "high")},
            "yardsticks": {k: number(v) for k, v in data["yardsticks"].items()},
            "details": {k: tuple(map(number, v)) for k, v in data["details"].items()},
        }
    )


def _without_nan(value: Any) -> Any:
    """JSON has no number for what was not computed."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
