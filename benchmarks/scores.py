"""The same judge for every contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MapSpec
from contracts.space import Space
from evaluation.audit import Auditor
from evaluation.comparison import Comparison, Float64Array
from evaluation.measured_set import MeasuredSet
from evaluation.results import Answer, Finding
from evaluation.texture import Expectation, measures
from evaluation.volume_set import VolumeSet

Scores = dict[str, dict[str, Any]]

_REAL_RANGE = (0.025, 0.975)
# Name of a finding, its heading, factor and digits in the table.
_COLUMNS = (
    ("kernel_distance", "kernel distance (x 1e-3)", 1e3, 1),
    ("fa_histogram", "FA histogram (x 1e-3)", 1e3, 1),
    ("md_histogram", "MD histogram (um2/s)", 1.0, 1),
    ("spectrum_error", "spectrum (dB)", 1.0, 2),
    ("slice_coherence", "slice coherence, most unlike", 1.0, 2),
    ("adherence", "age error (years)", 1.0, 1),
    ("copy_share", "near training (%)", 1.0, 1),
)


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

        ``slice_coherence`` also says in how many of its parts (map and plane) the mean of the
        volumes lies within the central 95 % of single real volumes.
        """
        made = MeasuredSet.from_volumes(VolumeSet(volumes, conditions), self.auditor.grid)
        audit = self.auditor.audit(name, made)
        found = {f.name: f for a in audit.answers for f in a.findings}
        own = self.expectation.coherence(volumes, conditions)
        found |= {f.name: f for f in self._texture(made, own).findings}
        scores = {k: _plain(found[k]) for k, *_ in _COLUMNS}
        low, high = np.quantile(self.coherence, _REAL_RANGE, axis=0)
        mean = own.mean(axis=0)
        inside = (mean >= low) & (mean <= high)
        details = {k: list(v) for k, v in found["slice_coherence"].details.items()}
        scores["slice_coherence"] |= {
            "parts": details,
            "mean": mean.tolist(),
            "real_low": low.tolist(),
            "real_high": high.tolist(),
            "inside": int(inside.sum()),
            "of": int(inside.size),
        }
        return scores

    def _texture(self, made: MeasuredSet, own: Float64Array) -> Answer:
        spectrum = np.concatenate([made.measurements.spectrum, self.test.measurements.spectrum])
        comparison = Comparison(len(own), len(self.coherence))
        wanted = measures(np.concatenate([own, self.coherence]), spectrum, self.auditor.grid.maps)
        return comparison.answer("fidelity", wanted, {})


def _plain(finding: Finding) -> dict[str, Any]:
    return {"value": finding.value, "low": finding.low, "high": finding.high, "unit": finding.unit}


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Results as Markdown: a row per run, differences from real with 95 % intervals."""
    heads = ["contestant", "seed", "evaluations", "M parameters", "steps", "training CPU s",
             "CPU s per volume", *(head for _, head, *_ in _COLUMNS), "coherent parts"]  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in results:
        scores = row["scores"]
        cells = [
            row["name"],
            *(_shown(row.get(k), d) for k, d in (("seed", 0), ("evaluations", 0))),
            _shown(row.get("parameters"), 2, 1e-6),
            *(_shown(row.get(k), d) for k, d in
              (("steps", 0), ("train_cpu_s", 0), ("sample_cpu_s", 2))),
        ]  # fmt: skip
        for name, _, factor, digits in _COLUMNS:
            value, low, high = (_shown(scores[name][k], digits, factor)
                                for k in ("value", "low", "high"))  # fmt: skip
            cells.append(f"{value} [{low}, {high}]")
        coherence = scores["slice_coherence"]
        cells.append(f"{coherence['inside']} of {coherence['of']}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.{digits}f}"


def ratios(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Kernel distance of ours over that of each other, and of ours with fewer evaluations over
    that with most, training by training.

    The distance is unbiased: of a perfect generator it is zero on average, and below zero as
    often as above. Over such a one no ratio is given.
    """
    distance: dict[tuple[str, int], dict[int, float]] = {}
    most: dict[str, int] = {}
    for row in results:
        if "seed" in row:
            key = (row["name"], row["evaluations"])
            distance.setdefault(key, {})[row["seed"]] = row["scores"]["kernel_distance"]["value"]
            most[row["name"]] = max(most.get(row["name"], 0), row["evaluations"])
    own = {row["name"] for row in results if row.get("own")}
    pairs = [((a, most[a]), (b, most[b])) for a in sorted(own) for b in most if a != b]
    pairs += [(key, (key[0], most[key[0]])) for key in distance if key[1] < most[key[0]]]
    out = {}
    for first, second in pairs:
        both = sorted(set(distance[first]) & set(distance[second]))
        found = [distance[first][s] / distance[second][s] for s in both
                 if distance[second][s] > 0]  # fmt: skip
        name = f"{first[0]} at {first[1]} / {second[0]} at {second[1]}"
        out[name] = {
            "median": float(np.median(found)) if found else None,
            "least": min(found, default=None),
            "most": max(found, default=None),
            "n": len(found),
        }
    return out
