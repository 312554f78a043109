"""What every contestant is scored by: differences of its volumes from real test subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import result
from contracts.condition import Condition
from contracts.maps import MapSpec
from contracts.space import Space
from evaluation.audit import Auditor
from evaluation.comparison import Comparison, Float64Array
from evaluation.measured_set import MeasuredSet
from evaluation.results import Answer, Finding
from evaluation.texture import Expectation, measures
from evaluation.volume_set import VolumeSet

Scores = dict[str, Any]

# The central part of single real volumes that a mean of generated ones should lie in.
_REAL_RANGE = (0.025, 0.975)
# The findings of an audit that a contest shows.
FINDINGS = (
    "classifier_auc", "boundary_roughness", "fa_grain", "md_grain", "tract_holes", "pieces",
    "kernel_distance", "fa_histogram", "md_histogram", "spectrum_error", "slice_coherence",
    "adherence", "copy_share",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judge:
    """Scores sets of volumes against real test subjects, as differences from them.

    Parameters
    ----------
    coherence : (n, maps, 3) of the test subjects, see `evaluation.texture`.
    """

    auditor: Auditor
    test: MeasuredSet
    expectation: Expectation
    coherence: Float64Array

    @classmethod
    def of(
        cls,
        train: VolumeSet,
        test: VolumeSet,
        space: Space,
        maps: tuple[MapSpec, ...],
        atlas: tuple[NDArray[np.int32], dict[int, str]] | None,
    ) -> Judge:
        """A judge that knows these subjects; generators have seen `train` only."""
        auditor = Auditor.from_volumes(
            train, test, space, maps, atlas, questions=("fidelity", "anatomy", "privacy")
        )
        expectation = Expectation.fit(train.volumes, train.conditions, maps)
        coherence = expectation.coherence(test.volumes, test.conditions)
        return cls(auditor, auditor.test, expectation, coherence)

    def scores(
        self, name: str, volumes: NDArray[np.float32], conditions: Sequence[Condition]
    ) -> Scores:
        """Value and 95 % interval per finding of (n, maps, X, Y, Z) volumes.

        ``coherent_parts`` says in how many parts of ``slice_coherence`` (a map and a plane) the
        mean of the volumes lies within the central 95 % of single real volumes.
        """
        made = MeasuredSet.from_volumes(VolumeSet(volumes, conditions), self.auditor.grid)
        audit = self.auditor.audit(name, made)
        found = {f.name: f for a in audit.answers for f in a.findings}
        own = self.expectation.coherence(volumes, conditions)
        found |= {f.name: f for f in self._texture(made, own).findings}
        scores: Scores = {name: _interval(found[name]) for name in FINDINGS}
        low, high = np.quantile(self.coherence, _REAL_RANGE, axis=0)
        mean = own.mean(axis=0)
        inside = (mean >= low) & (mean <= high)
        scores["slice_coherence"]["parts"] = {
            k: result.interval(*v) for k, v in found["slice_coherence"].details.items()
        }
        scores["coherent_parts"] = f"{inside.sum()} of {inside.size}"
        return scores

    def _texture(self, made: MeasuredSet, own: Float64Array) -> Answer:
        spectrum = np.concatenate([made.measurements.spectrum, self.test.measurements.spectrum])
        comparison = Comparison(len(own), len(self.coherence))
        wanted = measures(np.concatenate([own, self.coherence]), spectrum, self.auditor.grid.maps)
        return comparison.answer("fidelity", wanted, {})


def _interval(finding: Finding) -> dict[str, Any]:
    return {**result.interval(finding.value, finding.low, finding.high), "unit": finding.unit}


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Kernel distances of ours over those of others, training by training.

    The first rows divide each of ours at its most evaluations by each other contestant; the last
    ones divide ours at fewer evaluations by the same training at its most.

    The distance is unbiased: of a perfect generator it is zero on average, and below zero as
    often as above. Where a divisor is not above zero, that training gives no ratio.

    Returns
    -------
    Rows of ``first``, ``second``, ``ratio`` (median, least, most; None without any) and
    ``trainings``, their number.
    """
    distance: dict[tuple[str, int], dict[int, float]] = {}
    most: dict[str, int] = {}
    for row in rows:
        if "seed" in row:
            key = (row["name"], row["evaluations"])
            distance.setdefault(key, {})[row["seed"]] = row["scores"]["kernel_distance"]["value"]
            most[row["name"]] = max(most.get(row["name"], 0), row["evaluations"])
    own = {row["name"] for row in rows if row.get("own")}
    pairs = [((a, most[a]), (b, most[b])) for a in sorted(own) for b in most if a != b]
    pairs += [(key, (key[0], most[key[0]])) for key in distance if key[1] < most[key[0]]]
    out = []
    for first, second in pairs:
        both = sorted(set(distance[first]) & set(distance[second]))
        found = [distance[first][s] / distance[second][s] for s in both
                 if distance[second][s] > 0]  # fmt: skip
        out.append({
            "first": _named(*first),
            "second": _named(*second),
            "ratio": result.of_rounds(found) if found else None,
            "trainings": len(found),
        })  # fmt: skip
    return out


def _named(name: str, evaluations: int) -> str:
    return f"{name} at {evaluations} evaluations" if evaluations else name
