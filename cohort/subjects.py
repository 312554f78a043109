"""The subjects of one part of the split: names, conditions and volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort import channels, row_cache
from cohort.derivatives import Derivatives
from cohort.row_cache import Array
from cohort.split import Manifest
from contracts import closure
from contracts.bids import map_name, mask_name
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import MapSpec
from contracts.space import Space

# A regression on age, age squared and sex, and a spread around it, need as many subjects.
_FEWEST_SUBJECTS = 8


@dataclass(frozen=True, slots=True)
class Subjects:
    """Subjects whose volumes are in memory.

    Parameters
    ----------
    maps : the cohort's, in the order of the volumes' second axis.
    volumes : (n, maps, X, Y, Z), physical units.
    masks : (n, X, Y, Z).
    digest : see `SubjectFiles`.
    """

    ids: tuple[str, ...]
    maps: tuple[MapSpec, ...]
    volumes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    conditions: tuple[Condition, ...]
    space: Space
    digest: str

    def encoded(self) -> Array:
        """Returns the volumes in the channels of `cohort.channels`, (n, C, X, Y, Z)."""
        return channels.encode(self.volumes, self.masks, self.maps)


@dataclass(frozen=True, slots=True)
class SubjectFiles:
    """Subjects whose volumes are still on disk.

    Parameters
    ----------
    digest : short hash of ids, conditions and the files of volumes and masks.
    """

    cohort: Derivatives
    ids: tuple[str, ...]
    conditions: tuple[Condition, ...]
    digest: str

    @classmethod
    def find(
        cls, derivatives: Path, split: Path, group: str, part: str, sites: bool = False
    ) -> SubjectFiles:
        """Finds one part (train, val or test) of a group (base or target).

        Parameters
        ----------
        sites : whether the conditions name the subjects' sites.

        Raises
        ------
        UserError : if the part is empty, has fewer than 8 training subjects, or a file is missing.
        """
        found = cls.find_any(derivatives, split, group, part, sites)
        if part == "train" and len(found.ids) < _FEWEST_SUBJECTS:
            raise UserError(
                f"{split}: {len(found.ids)} subjects in {group}-train, at least {_FEWEST_SUBJECTS} "
                "are needed: add subjects or lower split.val and split.test"
            )
        if not found.ids:
            raise UserError(f"{split}: no subjects in {group}-{part}: raise its share in split")
        return found

    @classmethod
    def find_any(
        cls, derivatives: Path, split: Path, group: str, part: str, sites: bool = False
    ) -> SubjectFiles:
        """Finds one part of a group, which may have no subjects.

        Raises
        ------
        UserError : if a file is missing.
        """
        cohort = Derivatives.open(derivatives)
        return cls.of(cohort, Manifest.read(split).subjects(group, part), sites)

    @classmethod
    def of(cls, cohort: Derivatives, ids: Sequence[str], sites: bool = False) -> SubjectFiles:
        """Finds the files of some subjects of a cohort.

        Raises
        ------
        UserError : if a file is missing.
        """
        conditions = tuple(cohort.conditions(ids, sites))
        content = hashlib.sha256(repr((tuple(ids), conditions)).encode())
        for subject in ids:
            names = [map_name(subject, cohort.space, spec) for spec in cohort.maps]
            for name in (*names, mask_name(subject, cohort.space)):
                path = cohort.folder(subject) / name
                if not path.exists():
                    raise UserError(f"no such volume: {path}")
                content.update(path.read_bytes())
        return cls(cohort, tuple(ids), conditions, content.hexdigest()[:16])

    def of_sites(self, sites: Sequence[str]) -> SubjectFiles:
        """Returns those of the subjects whose site is among some, or unknown."""
        pairs = zip(self.ids, self.conditions, strict=True)
        ids = [subject for subject, c in pairs if c.site is None or c.site in sites]
        return SubjectFiles.of(self.cohort, ids, sites=True)

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """The cohort's maps."""
        return self.cohort.maps

    @property
    def space(self) -> Space:
        """The cohort's space."""
        return self.cohort.space

    def load(self) -> Subjects:
        """Reads all volumes.

        Raises
        ------
        UserError : if a volume cannot be read or is not in the cohort's space.
        """
        volumes, masks = self.cohort.load(self.ids, self.maps), self.cohort.masks(self.ids)
        return Subjects(
            self.ids, self.maps, volumes, masks, self.conditions, self.space, self.digest
        )

    def encoded(self, folder: Path) -> Array:
        """Returns the volumes in the channels of `cohort.channels`, (n, C, X, Y, Z).

        They are a memory map of a file in `folder`, which is kept: the template and every
        generator of these subjects start from it.

        Raises
        ------
        UserError : as `load`, or if the disk is too small.
        """
        shape = (len(self.ids), channels.count(self.maps), *self.space.shape)
        path = folder / f"encoded-{self.digest}-{closure.digest('cohort.channels')}.npy"
        return row_cache.rows(path, shape, self.encoded_row, "encode volumes")

    def encoded_row(self, i: int) -> Array:
        """Returns the i-th volume in the channels of `cohort.channels`, (C, X, Y, Z)."""
        subject = self.ids[i : i + 1]
        volume, mask = self.cohort.load(subject, self.maps), self.cohort.masks(subject)
        row: Array = channels.encode(volume, mask, self.maps)[0]
        return row


def load(derivatives: Path, split: Path, group: str, part: str) -> Subjects:
    """Reads all volumes of one part (train, val or test) of a group (base or target).

    Raises
    ------
    UserError : as `SubjectFiles.find` and `SubjectFiles.load`.
    """
    return SubjectFiles.find(derivatives, split, group, part).load()
