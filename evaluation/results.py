"""Results of an audit and their JSON form.

A `Finding` is the result of one measure, an `Answer` the result of one question (all its findings
and a verdict), and an `AuditResult` the answers to all questions about one volume set.
"""

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
    """The result of one measure, with the same number for reference sets beside it.

    Parameters
    ----------
    name : the key of the measure, e.g. ``kernel_distance``.
    label : the measure's name as a reader sees it.
    unit : the unit of value, interval, tolerance and yardsticks; "" for a number without unit.
    value, low, high : the estimate and its 95 % interval. The value is `chance` on average where
        synthetic and real volumes do not differ, unless the label says otherwise.
    tolerance : the largest difference that does not matter; None: the measure is reported and
        decides nothing.
    p : the permutation p-value, adjusted for all measures that decide the same question.
    verdict : ``fail``: the difference is beyond chance and beyond the tolerance. ``n too small``:
        a difference of three tolerances could have been missed. ``not measured``: the measure is
        reported only.
    needed : the number of volumes per group that is enough, where n is too small.
    yardsticks : the same number for other sets, e.g. ``real``, ``gaussian``, ``copies``.
    details : name of a region or setting -> its value, low and high, for a measure that
        summarises several.
    chance : the value where there is no difference: zero for all but a classifier's AUC.
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
    chance: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one question.

    Parameters
    ----------
    words : the verdict as a sentence.
    findings : one per measure of the question.
    """

    question: Question
    verdict: Verdict
    words: str
    findings: tuple[Finding, ...]

    def finding(self, name: str) -> Finding:
        """Returns the finding called `name`.

        Raises
        ------
        KeyError : if there is none.
        """
        for found in self.findings:
            if found.name == name:
                return found
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The result of the audit of one synthetic set.

    Parameters
    ----------
    name : the name of the synthetic set.
    n : the number of volumes of each set, e.g. ``{"synthetic": 64, "test": 36, "train": 86}``.
    answers : one per question, in the order of `QUESTIONS`.
    about : the origin of the sets: folders, digests, settings, seed.
    """

    name: str
    n: Mapping[str, int]
    answers: tuple[Answer, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def answer(self, question: Question) -> Answer:
        """Returns the answer to `question`.

        Raises
        ------
        KeyError : if it was not asked.
        """
        for one in self.answers:
            if one.question == question:
                return one
        raise KeyError(question)

    def with_findings(self, question: Question, more: Sequence[Finding]) -> AuditResult:
        """Returns a copy with further findings for a question, whose verdict does not change."""
        answers = tuple(
            replace(a, findings=(*a.findings, *more)) if a.question == question else a
            for a in self.answers
        )
        return replace(self, answers=answers)

    @property
    def failed(self) -> tuple[Question, ...]:
        """The questions whose verdict is ``fail``."""
        return tuple(a.question for a in self.answers if a.verdict == "fail")

    def to_json(self) -> dict[str, Any]:
        """Returns a JSON object; `schema` rises when a key changes its meaning or is removed."""
        plain: dict[str, Any] = _without_nan({"schema": SCHEMA, **asdict(self)})
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AuditResult:
        """Returns the audit result that `to_json` wrote.

        Raises
        ------
        ValueError : if the file has another schema.
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
    """Replaces NaN, which JSON does not have, by null."""
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
