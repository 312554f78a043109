"""A cohort's derivatives: maps and brain mask of each subject in one space, in BIDS names."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts import eigenvalues, volume
from contracts.condition import Condition, condition
from contracts.errors import UserError
from contracts.maps import AD, ALL_MAPS, FA, MAPS, MD, RD, MapSpec
from contracts.space import Space

PARTICIPANTS = "participants.tsv"
DESCRIPTION = "dataset_description.json"
SPACE = "space.json"
COLUMNS = ("participant_id", "age", "sex", "group", "site")


@dataclass(frozen=True, slots=True)
class Participant:
    """One row of participants.tsv.

    Parameters
    ----------
    id : BIDS label with its prefix, e.g. ``sub-sim0001``.
    group : ``base`` (what a generator is trained on) or ``target`` (what it is adapted to).
    site : scanner or site label.
    """

    id: str
    age: float
    sex: str
    group: str
    site: str

    @property
    def condition(self) -> Condition:
        """Age and sex, checked."""
        return condition(self.age, self.sex)


def write_participants(root: Path, participants: Iterable[Participant]) -> None:
    """Write participants.tsv under `root`, in the given order."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / PARTICIPANTS).open("w", newline="") as stream:
        rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
        rows.writerow(COLUMNS)
        for p in participants:
            rows.writerow([p.id, f"{p.age:.1f}", p.sex, p.group, p.site])


def read_participants(root: Path) -> list[Participant]:
    """Read participants.tsv under `root`.

    Raises
    ------
    UserError : if the file or a column is missing or a row cannot be read.
    """
    path = root / PARTICIPANTS
    if not path.exists():
        raise UserError(f"no {path}: expected a table with columns {', '.join(COLUMNS)}")
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{path}: column {', '.join(missing)} is missing")
        found = []
        for line, row in enumerate(reader, start=2):
            try:
                age = float(row["age"])
            except (TypeError, ValueError):
                raise UserError(
                    f"{path} line {line}: expected an age in years, found {row['age']!r}"
                ) from None
            found.append(
                Participant(row["participant_id"], age, row["sex"], row["group"], row["site"])
            )
    return found


def map_name(subject: str, space: Space, spec: MapSpec) -> str:
    """BIDS name (BEP016) of a map, e.g.
    ``sub-01_space-MNI152NLin2009aSym_res-4_model-tensor_param-fa_dwimap.nii.gz``."""
    return f"{subject}_space-{space.name}_model-tensor_param-{spec.name}_dwimap.nii.gz"


def mask_name(subject: str, space: Space) -> str:
    """BIDS name of a brain mask."""
    return f"{subject}_space-{space.name}_desc-brain_mask.nii.gz"


@dataclass(frozen=True, slots=True)
class Derivatives:
    """A derivatives folder that can be read.

    Layout: ``dataset_description.json``, ``participants.tsv``, ``space.json`` and per subject
    ``sub-x/dwi/`` with one NIfTI and JSON sidecar per map and a mask. A label atlas of the space,
    where there is one, is ``atlas_dseg.nii.gz`` with its names in ``atlas_dseg.tsv``.
    """

    root: Path
    space: Space
    participants: tuple[Participant, ...] = field(repr=False)

    @classmethod
    def open(cls, root: Path) -> Derivatives:
        """Open what `python -m cohort.derive` wrote.

        Raises
        ------
        UserError : if the folder, its space or its participants are missing.
        """
        path = root / SPACE
        if not path.exists():
            raise UserError(f"no derivatives in {root}: run `dvc repro derive` first")
        space = Space.from_json(json.loads(path.read_text()))
        return cls(root, space, tuple(read_participants(root)))

    def participant(self, subject: str) -> Participant:
        """The row of `subject`; a UserError if there is none."""
        for p in self.participants:
            if p.id == subject:
                return p
        raise UserError(f"{self.root / PARTICIPANTS} has no {subject}")

    def folder(self, subject: str) -> Path:
        """Where the files of `subject` are."""
        return self.root / subject / "dwi"

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """FA and MD, and AD and RD where the cohort was derived with them."""
        first = self.participants[0].id
        name = map_name(first, self.space, AD)
        return ALL_MAPS if (self.folder(first) / name).exists() else MAPS

    def load(self, subjects: Sequence[str], maps: Sequence[MapSpec] = MAPS) -> NDArray[np.float32]:
        """Maps in physical units, shape (subjects, maps, X, Y, Z)."""
        out = np.empty((len(subjects), len(maps), *self.space.shape), dtype=np.float32)
        for i, subject in enumerate(subjects):
            for j, spec in enumerate(maps):
                path = self.folder(subject) / map_name(subject, self.space, spec)
                out[i, j] = volume.read_on(path, self.space)
        return out

    def masks(self, subjects: Sequence[str]) -> NDArray[np.bool_]:
        """Brain masks, shape (subjects, X, Y, Z)."""
        out = np.empty((len(subjects), *self.space.shape), dtype=np.bool_)
        for i, subject in enumerate(subjects):
            path = self.folder(subject) / mask_name(subject, self.space)
            out[i] = volume.read_on(path, self.space) > 0
        return out

    def conditions(self, subjects: Sequence[str], sites: bool = False) -> list[Condition]:
        """Age and sex of each subject, and its site if asked for."""
        people = [self.participant(s) for s in subjects]
        return [replace(p.condition, site=p.site) if sites else p.condition for p in people]

    def atlas(self) -> tuple[NDArray[np.int32], dict[int, str]] | None:
        """Labels (X, Y, Z) and their names, or None where the derivatives carry no atlas."""
        path = self.root / "atlas_dseg.nii.gz"
        if not path.exists():
            return None
        labels = volume.read_on(path, self.space).astype(np.int32)
        with (self.root / "atlas_dseg.tsv").open(newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            names = {int(row["index"]): row["name"] for row in rows}
        return labels, names


def write_description(root: Path, name: str, simulated: bool, generated_by: str) -> None:
    """Write dataset_description.json (BIDS 1.10, derivative dataset)."""
    root.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": generated_by}],
        "Simulated": simulated,
    }
    (root / DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")


def possible(maps: Mapping[str, NDArray[np.float32]]) -> dict[MapSpec, NDArray[np.float32]]:
    """FA and MD clipped to their ranges and, where AD is given, the AD that they allow and RD.

    Parameters
    ----------
    maps : map name -> values in physical units.
    """
    fa, md = FA.clip(maps["fa"]), MD.clip(maps["md"])
    if "ad" not in maps:
        return {FA: fa, MD: md}
    ad = eigenvalues.nearest(fa, md, maps["ad"])
    return {FA: fa, MD: md, AD: ad, RD: eigenvalues.radial(md, ad)}


def write_subject(
    root: Path,
    subject: str,
    space: Space,
    maps: Mapping[str, NDArray[np.float32]],
    mask: NDArray[np.bool_],
    sidecar: dict[str, Any],
) -> None:
    """Write the `possible` maps, the mask and the sidecars of one subject."""
    folder = root / subject / "dwi"
    for spec, values in possible(maps).items():
        path = folder / map_name(subject, space, spec)
        volume.write(path, np.where(mask, values, np.float32(0)), space)
        meta = {"Parameter": spec.label, "Units": spec.unit or "1", **sidecar}
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text(
            json.dumps(meta, indent=2) + "\n"
        )
    volume.write(folder / mask_name(subject, space), mask, space)
