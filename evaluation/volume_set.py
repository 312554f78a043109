"""Sets of FA and MD volumes with ages and sexes, and how they are read from a folder."""

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
from contracts.bids import PARTICIPANTS
from contracts.condition import Condition, condition
from contracts.errors import UserError
from contracts.maps import MAPS, MapSpec
from contracts.space import Space

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class VolumeSet:
    """Volumes of several subjects or samples, with the age and sex of each.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z) in physical units.
    conditions : (n), age and sex of each volume.
    ids : (n), the name of each volume; empty where the volumes have no names.
    """

    volumes: Float32Array
    conditions: Sequence[Condition]
    ids: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def fa_and_md(self) -> VolumeSet:
        """The same volumes with FA and MD only, which come first among every cohort's maps."""
        return replace(self, volumes=self.volumes[:, : len(MAPS)])

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> VolumeSet:
        """Returns the volumes of these rows."""
        ids = tuple(self.ids[i] for i in rows) if self.ids else ()
        return VolumeSet(self.volumes[rows], tuple(self.conditions[i] for i in rows), ids)

    def with_volumes(self, volumes: Float32Array) -> VolumeSet:
        """Returns other volumes with the same conditions and names."""
        return replace(self, volumes=volumes.astype(np.float32))

    def followed_by(self, other: VolumeSet) -> VolumeSet:
        """Returns the volumes of both sets, this one first; nameless ones are called by row."""
        first, second = self._named(), other._named()
        return VolumeSet(
            np.concatenate([first.volumes, second.volumes]),
            (*first.conditions, *second.conditions),
            (*first.ids, *second.ids),
        )

    def _named(self) -> VolumeSet:
        return replace(self, ids=self.ids or tuple(f"volume {i}" for i in range(len(self))))


def read_folder(folder: Path, space: Space | None = None) -> tuple[VolumeSet, Space]:
    """Reads a folder of FA and MD maps that this or any other tool wrote.

    Every NIfTI file in the folder or below it counts whose name contains ``FA`` or ``MD`` as a
    word (``sub-01_FA.nii.gz``, ``sub-01_model-tensor_param-fa_dwimap.nii.gz``). The subject is
    the part of the name before the first underscore. ``participants.tsv`` in the folder has the
    columns participant_id, age and sex.

    Parameters
    ----------
    space : the grid that the maps must lie on; None: the grid of the first map.

    Returns
    -------
    The volumes, (n, 2, X, Y, Z) sorted by subject, and their grid.

    Raises
    ------
    UserError : if there are no maps, a subject lacks one of the two maps or its row in
        participants.tsv, or a volume does not lie on the grid.
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
    return VolumeSet(volumes, tuple(people[s] for s in subjects), tuple(subjects)), space


def _files(folder: Path, spec: MapSpec) -> dict[str, Path]:
    word = re.compile(rf"(?<![a-z]){spec.name}(?![a-z])", re.IGNORECASE)
    out: dict[str, Path] = {}
    # glob.glob follows linked folders; Path.rglob does not.
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
