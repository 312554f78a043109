"""What the simulated disease does to the maps, region by region: the truth to judge by."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort.derivatives import Derivatives, Participant
from cohort.regression import design
from contracts import bids, volume
from contracts.maps import MAPS, MapSpec

# Patients that are also simulated without their disease, from the first one on.
COUNT = 24
TABLE = "disease_effect.tsv"


@dataclass(frozen=True, slots=True)
class Effect:
    """Effect of the disease in one region.

    Parameters
    ----------
    region : name in the atlas.
    map : ``fa`` or ``md``.
    difference : mean of patients less mean of the same people without the disease, in the unit
        of the map.
    d : `difference` over the standard deviation of the healthy people at equal age and sex.
    """

    region: str
    map: str
    difference: float
    d: float


def patients(cohort: Sequence[Participant]) -> list[Participant]:
    """Returns those of the target group that are simulated without their disease, too."""
    return [p for p in cohort if p.group == "target"][:COUNT]


def effects(cohort: Derivatives, healthy: Path, subjects: Sequence[str]) -> list[Effect]:
    """Compares regional means of patients with those of the same people without the disease.

    Parameters
    ----------
    cohort : with an atlas.
    healthy : folder of the maps without the disease, laid out as those of the cohort.
    """
    atlas = cohort.atlas()
    assert atlas is not None, "a simulated cohort has an atlas"
    labels, names = atlas
    rows = design(cohort.conditions(subjects))
    found = []
    for spec in MAPS:
        sick = np.stack([_means(cohort.root, s, cohort, spec, labels, names) for s in subjects])
        well = np.stack([_means(healthy, s, cohort, spec, labels, names) for s in subjects])
        residual = well - rows @ np.linalg.lstsq(rows, well, rcond=None)[0]
        sd = np.sqrt((residual**2).sum(axis=0) / max(len(rows) - rows.shape[1], 1))
        difference = (sick - well).mean(axis=0)
        found += [
            Effect(name, spec.name, float(change), float(change / spread))
            for name, change, spread in zip(names.values(), difference, sd, strict=True)
            if np.isfinite(change) and spread > 0
        ]
    return found


def _means(
    root: Path,
    subject: str,
    cohort: Derivatives,
    spec: MapSpec,
    labels: NDArray[np.int32],
    names: dict[int, str],
) -> NDArray[np.float64]:
    """Returns the mean of a map in the brain's part of each region; nan where there is none."""
    folder = bids.derivatives_folder(root, subject)
    values = volume.read_on(folder / bids.map_name(subject, cohort.space, spec), cohort.space)
    brain = volume.read_on(folder / bids.mask_name(subject, cohort.space), cohort.space) > 0
    inside = [values[brain & (labels == number)] for number in names]
    return np.array([float(v.mean()) if len(v) else np.nan for v in inside])


def write(path: Path, found: Sequence[Effect]) -> None:
    """Writes the effects as a table."""
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, delimiter="\t", lineterminator="\n")
        table.writerow(["region", "map", "difference", "d"])
        table.writerows([e.region, e.map, f"{e.difference:.6g}", f"{e.d:.4g}"] for e in found)


def read(path: Path) -> list[Effect]:
    """Inverse of `write`."""
    with path.open(newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        return [Effect(r["region"], r["map"], float(r["difference"]), float(r["d"])) for r in rows]
