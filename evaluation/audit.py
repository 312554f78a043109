"""The audit of a synthetic set: five questions, asked of it and of reference sets beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.maps import FA, MapSpec
from contracts.space import Space
from evaluation import anatomy, diversity, fidelity, privacy, utility
from evaluation.comparison import Comparison, Float64Array, Measure
from evaluation.copy_search import best_match
from evaluation.measured_set import MeasuredSet
from evaluation.measurement_grid import MeasurementGrid
from evaluation.results import QUESTIONS, Answer, AuditResult, Finding, Question
from evaluation.volume_set import VolumeSet

_MIN_PER_HALF = 8


def _fa_similarity(first: MeasuredSet, second: MeasuredSet) -> Float64Array:
    return diversity.similarity(first.fa, second.fa, FA.maximum)


@dataclass(frozen=True, slots=True)
class Auditor:
    """Audits synthetic sets against real subjects.

    Parameters
    ----------
    train : real subjects that the generator was trained on.
    test : real subjects that were held out from training.
    permutations : their number per comparison.
    seed : of the permutations.
    questions : the questions to ask.
    similarity : returns the FA MS-SSIM of all pairs of two sets, see `diversity.similarity`. A
        caller that audits many splits of one set passes a function that looks the pairs up.
    """

    train: MeasuredSet
    test: MeasuredSet
    grid: MeasurementGrid
    permutations: int = 300
    seed: int = 0
    questions: tuple[Question, ...] = QUESTIONS
    similarity: Callable[[MeasuredSet, MeasuredSet], Float64Array] = _fa_similarity

    @classmethod
    def from_volumes(
        cls,
        train: VolumeSet,
        test: VolumeSet,
        space: Space,
        maps: tuple[MapSpec, ...],
        atlas: tuple[NDArray[np.int32], dict[int, str]] | None,
        workers: int = 1,
        **settings: Any,
    ) -> Auditor:
        """Measures the real subjects and returns an auditor.

        Parameters
        ----------
        atlas : labels (X, Y, Z) and names of regions; None: four quarters of the brain.
        workers : processes that measure volumes.
        settings : further parameters of `Auditor`.
        """
        grid = MeasurementGrid.from_real(space, maps, train.volumes, atlas)
        measured_train = MeasuredSet.from_volumes(train, grid, workers)
        return cls(measured_train, MeasuredSet.from_volumes(test, grid, workers), grid, **settings)

    def audit(
        self,
        name: str,
        synthetic: MeasuredSet,
        yardsticks: Mapping[str, MeasuredSet] | None = None,
        membership: tuple[Float64Array, Float64Array] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> AuditResult:
        """Asks all questions of a synthetic set.

        Parameters
        ----------
        yardsticks : name -> reference set, e.g. ``gaussian``, whose values are shown beside.
            If there are some but none is called ``real``, that one compares the two halves of
            the test subjects.
        membership : losses of training and of held-out subjects, see `privacy.membership`.
        about : the origin of the sets, which the result carries along.
        """
        given = yardsticks or {}
        with ThreadPoolExecutor() as pool:
            values = dict(zip(given, pool.map(self._values, given.values()), strict=True))
        if values and "real" not in values and len(self.test.measurements) >= 2 * _MIN_PER_HALF:
            values = {"real": self._values_of_halves(), **values}
        answers = [self._answer(q, synthetic, values, membership) for q in self.questions]
        n = {
            "synthetic": len(synthetic.measurements),
            "test": len(self.test.measurements),
            "train": len(self.train.measurements),
        }
        return AuditResult(name, n, tuple(answers), about or {})

    def _answer(
        self,
        question: Question,
        synthetic: MeasuredSet,
        yardsticks: Mapping[str, Mapping[str, float]],
        membership: tuple[Float64Array, Float64Array] | None,
    ) -> Answer:
        comparison, measures, extra = self._measures(question, synthetic)
        if question == "utility":
            made, train = synthetic.measurements, self.train.measurements
            first = made.take(np.arange(min(len(made), fidelity.MAX_PER_GROUP)))
            known = train.take(np.arange(min(len(train), fidelity.MAX_PER_GROUP)))
            gain = utility.augmentation(first, known, self.test.measurements, self.seed)
            extra = [*extra, gain]
        answer = comparison.answer(question, measures, yardsticks, extra)
        if question == "privacy" and membership is not None:
            return privacy.with_membership(answer, privacy.membership(*membership))
        return answer

    def _measures(
        self, question: Question, synthetic: MeasuredSet
    ) -> tuple[Comparison, Sequence[Measure], Sequence[Finding]]:
        """Returns a question's comparison, its measures, and findings without a comparison."""
        train, test = self.train.measurements, self.test.measurements
        made = synthetic.measurements
        if question == "utility":
            n = min(len(made), len(train), fidelity.MAX_PER_GROUP)
            rows = np.arange(n)
            pooled = made.take(rows).followed_by(train.take(rows))
            comparison = Comparison(n, n, self.permutations, self.seed)
            return comparison, utility.measures(pooled, test, train), ()
        pooled = made.followed_by(test)
        comparison = Comparison(len(made), len(test), self.permutations, self.seed)
        if question == "fidelity":
            return comparison, fidelity.measures(pooled, train, self.grid, len(made)), ()
        if question == "diversity":
            pairs = self.similarity(synthetic, self.test)
            return comparison, diversity.measures(pooled, train, pairs, len(made)), ()
        if question == "anatomy":
            extra = (anatomy.validity(made), *anatomy.agreement(made, test, self.grid))
            return comparison, anatomy.measures(pooled, train, self.grid), extra
        match = best_match(pooled, train)
        extra = privacy.duplicates(match, len(made), synthetic.ids)
        return comparison, privacy.measures(pooled, train, match), extra

    def _values_of_halves(self) -> dict[str, float]:
        """Returns the values of one random half of the test subjects against the other."""
        rows = np.random.default_rng(self.seed).permutation(len(self.test.measurements))
        half = len(rows) // 2
        first, second = (self.test.take(np.sort(r)) for r in (rows[:half], rows[half:]))
        return replace(self, test=second)._values(first)

    def _values(self, measured: MeasuredSet) -> dict[str, float]:
        """Returns name -> value of all measures of a set."""
        values: dict[str, float] = {}
        for question in self.questions:
            comparison, measures, extra = self._measures(question, measured)
            values |= comparison.values(measures)
            values |= {finding.name: finding.value for finding in extra}
        return values
