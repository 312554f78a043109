"""Audits of folders of maps that any tool wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from contracts.console import say
from contracts.maps import MAPS
from evaluation.atlas import read_atlas
from evaluation.audit import Auditor
from evaluation.block_features import standardised
from evaluation.comparison import Comparison, Float64Array, Measure
from evaluation.copies import plant_canaries
from evaluation.fidelity import frechet_distance, principal_components
from evaluation.gaussian_baseline import gaussian_volumes
from evaluation.kernel_distance import kernel_distance, median_distance
from evaluation.measured_set import MeasuredSet
from evaluation.network_comparison import compare_networks
from evaluation.networks import NetworkSettings
from evaluation.pretrained_features import load
from evaluation.pretrained_weights import NetworkName
from evaluation.results import AuditResult, Finding
from evaluation.volume_set import VolumeSet, read_folder


@dataclass(frozen=True, slots=True)
class FolderAuditSettings:
    """Options of a folder audit.

    Parameters
    ----------
    atlas : path of a label image on the grid of the maps; None: four quarters of the brain.
    canaries : the number of disguised training subjects to plant among the synthetic maps.
    weights : name of a pretrained network -> its weights, see
        `evaluation.pretrained_features.load`. Networks that are not named are not used.
    networks : whether to train convolutional networks of age and sex too, which takes minutes.
    workers : processes that measure volumes.
    permutations : their number per comparison.
    """

    atlas: Path | None = None
    canaries: int = 0
    weights: Mapping[NetworkName, str] = field(default_factory=dict)
    networks: bool = False
    workers: int = 1
    permutations: int = 300


def audit_folders(
    synthetic: Path, train: Path, test: Path, settings: FolderAuditSettings
) -> AuditResult:
    """Audits the maps of a folder against real maps.

    Parameters
    ----------
    synthetic : folder of the synthetic maps.
    train : folder of the real maps that the generator was trained on.
    test : folder of real maps that were held out.

    Raises
    ------
    UserError : if a folder, the atlas or weights cannot be read, or the three folders are not on
        one grid.
    """
    known, space = read_folder(train)
    new, _ = read_folder(test, space)
    made, _ = read_folder(synthetic, space)
    if settings.canaries:
        made = plant_canaries(made, known, settings.canaries)
    atlas = read_atlas(settings.atlas, space) if settings.atlas else None
    extractors = {k: load(k, path) for k, path in settings.weights.items()}
    say(f"auditing {len(made)} synthetic maps against {len(new)} real ones")
    auditor = Auditor.from_volumes(
        known, new, space, MAPS, atlas, settings.workers, permutations=settings.permutations
    )
    measured = MeasuredSet.from_volumes(made, auditor.grid, settings.workers)
    samples = gaussian_volumes(known, made.conditions, range(len(made)), MAPS)
    gaussian = VolumeSet(samples, made.conditions)
    yardsticks = {
        "gaussian": MeasuredSet.from_volumes(gaussian, auditor.grid, settings.workers),
        "copies": auditor.train,
        "shuffled": measured.with_shuffled_ages(),
    }
    about = {
        "synthetic": str(synthetic),
        "train": str(train),
        "test": str(test),
        "atlas": str(settings.atlas) if settings.atlas else "none: quarters of the brain",
        "canaries": settings.canaries,
        "weights": dict(settings.weights) or "none given",
    }
    result = auditor.audit(synthetic.name, measured, yardsticks, about=about)
    for name in get_args(NetworkName):
        if name not in extractors:
            result = result.with_findings("fidelity", [_not_measured(name)])
            continue
        say(f"features of {name}")
        extract = extractors[name]
        features = (extract(made.volumes), extract(new.volumes), extract(known.volumes))
        found = _compare_features(name, *features, settings.permutations)
        result = result.with_findings("fidelity", found)
    if settings.networks:
        for network in (NetworkSettings("2d"), NetworkSettings("3d")):
            found = compare_networks(made, known, new, MAPS, network)
            result = result.with_findings("utility", found)
    return result


def _not_measured(name: NetworkName) -> Finding:
    label = f"Kernel distance of {name} features: no weights given"
    return Finding(f"{name}_kernel", label, "", math.nan, math.nan, math.nan)


def _compare_features(
    name: NetworkName,
    made: Float64Array,
    new: Float64Array,
    known: Float64Array,
    permutations: int,
) -> tuple[Finding, ...]:
    """Returns the kernel and the Frechet distance of a pretrained network's features.

    They are reported and decide nothing, since no tolerance for them is known.

    Parameters
    ----------
    made, new, known : (n, F), features of the synthetic, the test and the training volumes.
    """
    pooled = standardised(np.concatenate([made, new]), known)
    reference = standardised(known, known)
    measures = [
        Measure(f"{name}_kernel", f"Kernel distance of {name} features", "",
                kernel_distance(pooled, median_distance(reference)), "above"),
        Measure(f"{name}_frechet", f"Frechet distance of 8 components of {name} features", "",
                frechet_distance(principal_components(pooled, reference)), "above",
                min_per_group=16),
    ]  # fmt: skip
    return Comparison(len(made), len(new), permutations).answer("fidelity", measures, {}).findings
