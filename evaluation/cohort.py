"""A set of volumes with ages and sexes, from memory or from any folder of maps."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts import volume
from contracts.condition import Condition, condition
from contracts.errors import UserError
from contracts.maps import MAPS, MapSpec
from contracts.space import Space

Array = NDArray[np.float32]

PARTICIPANTS = "participants.tsv"


@dataclass(frozen=True, slots=True)
class Cohort:
    """A set of volumes.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), physical units.
    conditions : age and sex of each.
    ids : what each is called; "" where they have no name.
    """

    volumes: Array
    conditions: Sequence[Condition]
    ids: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def judged(self) -> Cohort:
        """FA and MD alone, which lead every cohort's maps: what the judge asks about."""
        return replace(self, volumes=self.volumes[:, : len(MAPS)])

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Cohort:
        """The volumes of these rows."""
        ids = tuple(self.ids[i] for i in rows) if self.ids else ()
        return Cohort(self.volumes[rows], tuple(self.conditions[i] for i in rows), ids)


def read(folder: Path, space: Space | None = None) -> tuple[Cohort, Space]:
    """Read the maps of a folder that this or another tool wrote.

    Every NIfTI file whose name holds ``FA`` or ``MD`` as a word (``sub-01_FA.nii.gz``,
    ``sub-01_model-tensor_param-fa_dwimap.nii.gz``), in the folder or below; the subject is the
    name's part before the first underscore. ``participants.tsv`` gives participant_id, age, sex.

    Parameters
    ----------
    space : grid that the maps must lie on; default: that of the first one.

    Raises
    ------
    UserError : if there are no maps, one of a pair or a row of participants.tsv is missing, or a
        volume does not lie on the grid.
    """
    found = {spec.name: _files(folder, spec) for spec in MAPS}
    subjects = sorted(set().union(*found.values()))
    if not subjects:
        raise UserError(f"no FA or MD maps in {folder}: expected files such as sub-01_FA.nii.gz")
    people = _people(folder)
    for subject in subjects:
        lacking = [spec.label for spec in MAPS if subject not in found[spec.name]]
        if lacking:
            raise UserError(f"{folder}: {subject} has no {' and no '.join(lacking)} map")
        if subject not in people:
            raise UserError(f"{folder / PARTICIPANTS} has no row for {subject}")
    if space is None:
        data, affine = volume.read(found[MAPS[0].name][subjects[0]])
        space = Space.from_affine(f"{folder.name}'s grid", data.shape[:3], affine)
    volumes = np.empty((len(subjects), len(MAPS), *space.shape), dtype=np.float32)
    for i, subject in enumerate(subjects):
        for k, spec in enumerate(MAPS):
            volumes[i, k] = volume.read_on(found[spec.name][subject], space)
    return Cohort(volumes, tuple(people[s] for s in subjects), tuple(subjects)), space


def _files(folder: Path, spec: MapSpec) -> dict[str, Path]:
    word = re.compile(rf"(?<![a-z]){spec.name}(?![a-z])", re.IGNORECASE)
    out: dict[str, Path] = {}
    # Unlike Path.rglob, this follows linked folders.
    found = glob.glob(f"{glob.escape(str(folder))}/**/*.nii*", recursive=True)
    for path in map(Path, sorted(found)):
        name = path.name.split(".nii")[0]
        subject, _, rest = name.partition("_")
        if word.search(rest or name):
            if subject in out:
                raise UserError(
                    f"{folder}: {subject} has two {spec.label} maps, {out[subject].name} and "
                    f"{path.name}; name a folder with one per subject"
                )
            out[subject] = path
    return out


def _people(folder: Path) -> dict[str, Condition]:
    path = folder / PARTICIPANTS
    if not path.exists():
        raise UserError(f"no {path}: expected a table with columns participant_id, age, sex")
    people = {}
    with path.open(newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            try:
                people[row["participant_id"]] = condition(float(row["age"]), row["sex"])
            except (KeyError, TypeError, ValueError):
                raise UserError(
                    f"{path}: expected participant_id, an age in years and a sex (F or M) in "
                    f"every row, found {dict(row)}"
                ) from None
    return people
