"""Auditing folders of maps that any tool wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from contracts.console import say
from contracts.maps import MAPS
from evaluation.atlas import read as read_atlas
from evaluation.audit import Auditor, Subject
from evaluation.baseline import gaussian_volumes
from evaluation.cohort import Cohort, read
from evaluation.comparison import Comparison, Measure, Table
from evaluation.controls import plant, shuffled_ages
from evaluation.distance import median_distance
from evaluation.fidelity import components, frechet, kernel, standardised
from evaluation.finding import Audit, Finding
from evaluation.networks import NetworkSettings, compare
from evaluation.weights import Kind, load


@dataclass(frozen=True, slots=True)
class Settings:
    """How folders are audited.

    Parameters
    ----------
    atlas : label image on the grid of the maps.
    canaries : training subjects to plant among the synthetic maps, disguised.
    weights : ``medicalnet`` or ``radimagenet`` -> weights for features, see `weights.load`.
    networks : train networks for the question of utility too.
    """

    atlas: Path | None = None
    canaries: int = 0
    weights: Mapping[Kind, str] = field(default_factory=dict)
    networks: bool = False
    workers: int = 1
    shuffles: int = 300


def audit(synthetic: Path, train: Path, test: Path, settings: Settings) -> Audit:
    """Audit the maps of `synthetic` against real maps.

    Raises
    ------
    UserError : if a folder cannot be read or the three are not on one grid.
    """
    known, space = read(train)
    new, _ = read(test, space)
    made, _ = read(synthetic, space)
    if settings.canaries:
        made = plant(made, known, settings.canaries)
    atlas = read_atlas(settings.atlas, space) if settings.atlas else None
    say(f"auditing {len(made)} synthetic maps against {len(new)} real ones")
    auditor = Auditor.of(
        known, new, space, MAPS, atlas, settings.workers, shuffles=settings.shuffles
    )
    subject = Subject.of(made, auditor.frame, settings.workers)
    seeds = range(len(made))
    drawn = gaussian_volumes(known, made.conditions, list(seeds), MAPS)
    yardsticks = {
        "gaussian": Subject.of(Cohort(drawn, made.conditions), auditor.frame, settings.workers),
        "copies": auditor.train,
        "shuffled": shuffled_ages(subject),
    }
    about = {
        "synthetic": str(synthetic),
        "train": str(train),
        "test": str(test),
        "atlas": str(settings.atlas) if settings.atlas else "none: quarters of the brain",
        "canaries": settings.canaries,
        "weights": dict(settings.weights) or "none given",
    }
    extractors = {k: load(k, path) for k, path in settings.weights.items()}
    found = auditor.audit(synthetic.name, subject, yardsticks, about=about)
    for kind in get_args(Kind):
        if kind not in extractors:
            found = found.with_findings("fidelity", [_absent(kind)])
            continue
        say(f"features of {kind}")
        extract = extractors[kind]
        points = (extract(made.volumes), extract(new.volumes), extract(known.volumes))
        found = found.with_findings("fidelity", _features(kind, *points, settings.shuffles))
    if settings.networks:
        pair = (NetworkSettings("2d"), NetworkSettings("3d"))
        more = [f for one in pair for f in compare(made, known, new, MAPS, one)]
        found = found.with_findings("utility", more)
    return found


def _absent(kind: Kind) -> Finding:
    label = f"Kernel distance of {kind} features: no weights given"
    return Finding(f"{kind}_kernel", label, "", math.nan, math.nan, math.nan)


def _features(
    kind: Kind, made: Table, new: Table, known: Table, shuffles: int
) -> tuple[Finding, ...]:
    """Kernel and Frechet distance of pretrained features: reported, not judged, since no
    tolerance for them is known."""
    pooled = standardised(np.concatenate([made, new]), known)
    reference = standardised(known, known)
    measures = [
        Measure(f"{kind}_kernel", f"Kernel distance of {kind} features", "",
                kernel(pooled, median_distance(reference)), "above"),
        Measure(f"{kind}_frechet", f"Frechet distance of 8 components of {kind} features", "",
                frechet(components(pooled, reference)), "above", needed=16),
    ]  # fmt: skip
    return Comparison(len(made), len(new), shuffles).answer("fidelity", measures, {}).findings
