"""A cohort's derivatives: maps and brain mask of each scan in one space, as a BIDS dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.stage_output import hint
from contracts import bids, eigenvalues, volume
from contracts.condition import Condition, condition
from contracts.errors import UserError
from contracts.maps import AD, ALL_MAPS, FA, MAPS, MD, RD, MapSpec
from contracts.space import Space


@dataclass(frozen=True, slots=True)
class Participant:
    """One row of participants.tsv.

    Parameters
    ----------
    id : id of the scan, e.g. ``sub-sim0001``; see `contracts.bids`.
    age : in years.
    sex : ``F`` or ``M``.
    group : ``base``, which a generator is trained on, or ``target``, which it is adapted to.
    site : label of the scanner or site.
    """

    id: str
    age: float
    sex: str
    group: str
    site: str

    @property
    def condition(self) -> Condition:
        """Age and sex; a UserError if they are not possible ones."""
        return condition(self.age, self.sex)


def write_participants(root: Path, participants: Iterable[Participant]) -> None:
    """Write participants.tsv under `root`, in the given order."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / bids.PARTICIPANTS).open("w", newline="") as stream:
        rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
        rows.writerow(bids.PARTICIPANT_COLUMNS)
        for p in participants:
            rows.writerow([p.id, f"{p.age:.1f}", p.sex, p.group, p.site])


def read_participants(root: Path) -> list[Participant]:
    """Read participants.tsv under `root`.

    Raises
    ------
    UserError : if the file or a column is missing or a row cannot be read.
    """
    path = root / bids.PARTICIPANTS
    columns = bids.PARTICIPANT_COLUMNS
    if not path.exists():
        raise UserError(
            f"no {path}: expected a table with columns {', '.join(columns)}; {hint('derive', root)}"
        )
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream, delimiter="\t")
        missing = [c for c in columns if c not in (reader.fieldnames or [])]
        if missing:
            raise UserError(f"{path}: column {', '.join(missing)} is missing: add it")
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


@dataclass(frozen=True, slots=True)
class Derivatives:
    """A derivatives folder that can be read.

    It holds ``dataset_description.json``, ``participants.tsv``, ``space.json`` and, for each
    scan, ``sub-x/dwi/`` with one NIfTI file and JSON sidecar per map and a mask. A label atlas of
    the space, where there is one, is ``atlas_dseg.nii.gz`` with its names in ``atlas_dseg.tsv``.
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
        path = root / bids.SPACE
        if not path.exists():
            raise UserError(f"no derivatives in {root}: {hint('derive', root)}")
        space = Space.from_json(json.loads(path.read_text()))
        return cls(root, space, tuple(read_participants(root)))

    def participant(self, subject: str) -> Participant:
        """Return the row of a scan id; a UserError if there is none."""
        for p in self.participants:
            if p.id == subject:
                return p
        raise UserError(f"{self.root / bids.PARTICIPANTS} has no {subject}")

    def folder(self, subject: str) -> Path:
        """Return the folder with the files of a scan id."""
        return bids.derivatives_folder(self.root, subject)

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """The maps of the cohort: FA and MD, and AD and RD where it was derived with them."""
        first = self.participants[0].id
        name = bids.map_name(first, self.space, AD)
        return ALL_MAPS if (self.folder(first) / name).exists() else MAPS

    def load(self, subjects: Sequence[str], maps: Sequence[MapSpec] = MAPS) -> NDArray[np.float32]:
        """Read maps in physical units; the result has the shape (subjects, maps, X, Y, Z)."""
        out = np.empty((len(subjects), len(maps), *self.space.shape), dtype=np.float32)
        for i, subject in enumerate(subjects):
            for j, spec in enumerate(maps):
                path = self.folder(subject) / bids.map_name(subject, self.space, spec)
                out[i, j] = volume.read_on(path, self.space)
        return out

    def masks(self, subjects: Sequence[str]) -> NDArray[np.bool_]:
        """Read brain masks; the result has the shape (subjects, X, Y, Z)."""
        out = np.empty((len(subjects), *self.space.shape), dtype=np.bool_)
        for i, subject in enumerate(subjects):
            path = self.folder(subject) / bids.mask_name(subject, self.space)
            out[i] = volume.read_on(path, self.space) > 0
        return out

    def conditions(self, subjects: Sequence[str], sites: bool = False) -> list[Condition]:
        """Return age and sex of each subject, and the site if `sites` is true."""
        people = [self.participant(s) for s in subjects]
        return [replace(p.condition, site=p.site) if sites else p.condition for p in people]

    def atlas(self) -> tuple[NDArray[np.int32], dict[int, str]] | None:
        """Read the labels (X, Y, Z) and their names; None where there is no atlas."""
        path = self.root / bids.ATLAS
        if not path.exists():
            return None
        labels = volume.read_on(path, self.space).astype(np.int32)
        with (self.root / bids.ATLAS_NAMES).open(newline="") as stream:
            rows = csv.DictReader(stream, delimiter="\t")
            names = {int(row["index"]): row["name"] for row in rows}
        return labels, names


def write_description(root: Path, name: str, simulated: bool, generated_by: str) -> None:
    """Write the dataset_description.json of a derivative dataset.

    Parameters
    ----------
    simulated : whether the subjects do not exist.
    generated_by : name of the program.
    """
    root.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "Name": name,
        "BIDSVersion": bids.VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": generated_by}],
        "Simulated": simulated,
    }
    (root / bids.DESCRIPTION).write_text(json.dumps(content, indent=2) + "\n")


def write_space(root: Path, space: Space) -> None:
    """Write the space of the maps to `root`."""
    (root / bids.SPACE).write_text(json.dumps(space.to_json(), indent=2) + "\n")


def valid_maps(maps: Mapping[str, NDArray[np.float32]]) -> dict[MapSpec, NDArray[np.float32]]:
    """Return maps whose values are possible, alone and together.

    FA and MD are clipped to their ranges. Where AD is given, it is moved to the nearest value
    that FA and MD allow, and RD is added.

    Parameters
    ----------
    maps : values (X, Y, Z) in physical units by map name: fa, md and possibly ad.
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
    """Write the valid maps, their sidecars and the mask of one scan; the mask is written last.

    Parameters
    ----------
    maps : values (X, Y, Z) in physical units by map name: fa, md and possibly ad.
    mask : (X, Y, Z); maps are zero outside it.
    sidecar : what the JSON file beside each map tells beyond its name and unit.
    """
    folder = bids.derivatives_folder(root, subject)
    for spec, values in valid_maps(maps).items():
        path = folder / bids.map_name(subject, space, spec)
        volume.write(path, np.where(mask, values, np.float32(0)), space)
        meta = {"Parameter": spec.label, "Units": spec.unit or "1", **sidecar}
        bids.sidecar(path).write_text(json.dumps(meta, indent=2) + "\n")
    volume.write(folder / bids.mask_name(subject, space), mask, space)
