"""The judge: five questions about a set of synthetic maps, asked of it and of its yardsticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.maps import FA, MapSpec
from contracts.space import Space
from evaluation import anatomy, diversity, fidelity, privacy, utility
from evaluation.cohort import Cohort
from evaluation.comparison import Comparison, Measure, Table
from evaluation.finding import QUESTIONS, Answer, Audit, Finding, Question
from evaluation.profile import Frame, Profiles, measure

Array = NDArray[np.float32]

_FEWEST_HALF = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """A set as the audit sees it: its measurements, and its FA maps for similarity of pairs.

    Parameters
    ----------
    fa : (n, X, Y, Z).
    """

    profiles: Profiles
    fa: Array
    ids: Sequence[str] = ()

    @classmethod
    def of(cls, cohort: Cohort, frame: Frame, workers: int = 1) -> Subject:
        """Measure a cohort."""
        fa = [m.name for m in frame.maps].index("fa")
        profiles = measure(cohort.volumes, cohort.conditions, frame, workers)
        return cls(profiles, cohort.volumes[:, fa], cohort.ids)

    def take(self, rows: NDArray[np.int64]) -> Subject:
        """The volumes of these rows."""
        ids = tuple(self.ids[i] for i in rows) if self.ids else ()
        return Subject(self.profiles.take(rows), self.fa[rows], ids)


def _similarity(first: Subject, second: Subject) -> Table:
    return diversity.similarity(first.fa, second.fa, FA.maximum)


@dataclass(frozen=True, slots=True)
class Auditor:
    """Judges sets of maps against real subjects.

    Parameters
    ----------
    train : real subjects that the generator has seen.
    test : real subjects that nobody has seen.
    shuffles : regroupings per comparison; the smallest p-value is one over them.
    questions : which to ask; a search asks fewer.
    similarity : FA MS-SSIM of the pairs of two sets; who audits one set in many ways looks
        them up instead.
    """

    train: Subject
    test: Subject
    frame: Frame
    shuffles: int = 300
    seed: int = 0
    questions: tuple[Question, ...] = QUESTIONS
    similarity: Callable[[Subject, Subject], Table] = _similarity

    @classmethod
    def of(
        cls,
        train: Cohort,
        test: Cohort,
        space: Space,
        maps: tuple[MapSpec, ...],
        atlas: tuple[NDArray[np.int32], dict[int, str]] | None,
        workers: int = 1,
        **settings: Any,
    ) -> Auditor:
        """An auditor that knows these real subjects."""
        frame = Frame.of(space, maps, train.volumes, atlas)
        known = Subject.of(train, frame, workers)
        return cls(known, Subject.of(test, frame, workers), frame, **settings)

    def audit(
        self,
        name: str,
        synthetic: Subject,
        yardsticks: Mapping[str, Subject] | None = None,
        membership: tuple[Table, Table] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Audit:
        """Ask all questions of a set.

        Parameters
        ----------
        yardsticks : sets whose values are shown beside, e.g. ``gaussian``. Without a set
            ``real``, the two halves of the test subjects are compared.
        membership : losses of training and held-out subjects, see `privacy.membership`.
        """
        values = {k: self._values(v) for k, v in (yardsticks or {}).items()}
        if values and "real" not in values and len(self.test.profiles) >= 2 * _FEWEST_HALF:
            values = {"real": self._halves(), **values}
        answers = [self._answer(q, synthetic, values, membership) for q in self.questions]
        n = {
            "synthetic": len(synthetic.profiles),
            "test": len(self.test.profiles),
            "train": len(self.train.profiles),
        }
        return Audit(name, n, tuple(answers), about or {})

    def _answer(
        self,
        question: Question,
        synthetic: Subject,
        yardsticks: Mapping[str, Mapping[str, float]],
        membership: tuple[Table, Table] | None,
    ) -> Answer:
        comparison, measures, extra = self._measures(question, synthetic)
        if question == "utility":
            made, train = synthetic.profiles, self.train.profiles
            rows = np.arange(min(len(made), fidelity.MOST))
            known = train.take(np.arange(min(len(train), fidelity.MOST)))
            gain = utility.augmentation(made.take(rows), known, self.test.profiles, self.seed)
            extra = [*extra, gain]
        answer = comparison.answer(question, measures, yardsticks, extra)
        if question == "privacy" and membership is not None:
            return privacy.with_membership(answer, privacy.membership(*membership))
        return answer

    def _measures(
        self, question: Question, synthetic: Subject
    ) -> tuple[Comparison, Sequence[Measure], Sequence[Finding]]:
        train, test, made = self.train.profiles, self.test.profiles, synthetic.profiles
        if question == "utility":
            n = min(len(made), len(train), fidelity.MOST)
            rows = np.arange(n)
            pooled = made.take(rows).followed_by(train.take(rows))
            comparison = Comparison(n, n, self.shuffles, self.seed)
            return comparison, utility.measures(pooled, test, train), ()
        pooled = made.followed_by(test)
        comparison = Comparison(len(made), len(test), self.shuffles, self.seed)
        if question == "fidelity":
            return comparison, fidelity.measures(pooled, train, self.frame, len(made)), ()
        if question == "diversity":
            pairs = self.similarity(synthetic, self.test)
            return comparison, diversity.measures(pooled, train, pairs, len(made)), ()
        if question == "anatomy":
            extra = (anatomy.validity(made), *anatomy.agreement(made, test, self.frame))
            return comparison, anatomy.measures(pooled, train, self.frame), extra
        match = privacy.best_match(pooled, train)
        extra = privacy.duplicates(match, len(made), synthetic.ids)
        return comparison, privacy.measures(pooled, train, match), extra

    def _halves(self) -> dict[str, float]:
        rows = np.random.default_rng(self.seed).permutation(len(self.test.profiles))
        half = len(rows) // 2
        first, second = (self.test.take(np.sort(r)) for r in (rows[:half], rows[half:]))
        return replace(self, test=second)._values(first)

    def _values(self, subject: Subject) -> dict[str, float]:
        out: dict[str, float] = {}
        for question in self.questions:
            comparison, measures, extra = self._measures(question, subject)
            out |= comparison.values(measures)
            out |= {finding.name: finding.value for finding in extra}
        return out
