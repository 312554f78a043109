"""A split of a cohort as training reads it: people by name, volumes from a file."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.derivatives import Derivatives
from cohort.split import Manifest
from contracts import eigenvalues, maps
from contracts.bids import map_name, mask_name
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import MapSpec
from contracts.space import Space
from models import representation
from models.denoiser import condition_vector
from models.gaussian import design
from models.latent import LatentPrior
from models.prior import Prior
from training import cache
from training.cache import Array

# A regression on age, age squared and sex, and a spread around it.
_FEWEST_SUBJECTS = 8
_RESIDUAL = "residual.npy"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one part of a split, in memory.

    Parameters
    ----------
    maps : the cohort's, in the order of the volumes' second axis.
    volumes : (n, maps, X, Y, Z), physical units.
    masks : (n, X, Y, Z).
    digest : see `Part`.
    """

    ids: tuple[str, ...]
    maps: tuple[MapSpec, ...]
    volumes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    conditions: tuple[Condition, ...]
    space: Space
    digest: str

    def encoded(self) -> Array:
        """The volumes as generators see them, (n, C, X, Y, Z)."""
        return representation.encode(self.volumes, self.masks, self.maps)


@dataclass(frozen=True, slots=True)
class Part:
    """The subjects of one part of a split, their volumes still on disk.

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
    ) -> Part:
        """One part (train, val or test) of a group (base or target).

        Parameters
        ----------
        sites : whether the conditions name the subjects' sites.

        Raises
        ------
        UserError : if the part is empty, or a file is missing.
        """
        cohort = Derivatives.open(derivatives)
        ids = Manifest.read(split).subjects(group, part)
        if part == "train" and len(ids) < _FEWEST_SUBJECTS:
            raise UserError(
                f"{split}: {len(ids)} subjects in {group}-train, at least {_FEWEST_SUBJECTS} are "
                "needed: add subjects or lower split.val and split.test"
            )
        if not ids:
            raise UserError(f"{split}: no subjects in {group}-{part}: raise its share in split")
        conditions = tuple(cohort.conditions(ids, sites))
        content = hashlib.sha256(repr((ids, conditions)).encode())
        for subject in ids:
            names = [map_name(subject, cohort.space, spec) for spec in cohort.maps]
            for name in (*names, mask_name(subject, cohort.space)):
                path = cohort.folder(subject) / name
                if not path.exists():
                    raise UserError(f"no such volume: {path}")
                content.update(path.read_bytes())
        return cls(cohort, ids, conditions, content.hexdigest()[:16])

    @property
    def maps(self) -> tuple[MapSpec, ...]:
        """The cohort's."""
        return self.cohort.maps

    @property
    def space(self) -> Space:
        """The cohort's."""
        return self.cohort.space

    def load(self) -> Subjects:
        """All volumes.

        Raises
        ------
        UserError : if a volume cannot be read or is not in the cohort's space.
        """
        volumes, masks = self.cohort.load(self.ids, self.maps), self.cohort.masks(self.ids)
        return Subjects(
            self.ids, self.maps, volumes, masks, self.conditions, self.space, self.digest
        )

    def encoded(self, folder: Path) -> Array:
        """The volumes as generators see them, (n, C, X, Y, Z): a memory map of a file in `folder`.

        The file is kept: every generator of these subjects starts from it.

        Raises
        ------
        UserError : as `load`, or if the disk is too small.
        """
        # The file belongs to its subjects and to the code that encodes them.
        key = hashlib.sha256(self.digest.encode())
        for module in (representation, eigenvalues, maps):
            key.update(inspect.getsource(module).encode())
        seen = self.maps
        shape = (len(self.ids), representation.channels(seen), *self.space.shape)

        def encode(i: int) -> Array:
            subject = self.ids[i : i + 1]
            volume, mask = self.cohort.load(subject, seen), self.cohort.masks(subject)
            one: Array = representation.encode(volume, mask, seen)[0]
            return one

        path = folder / f"encoded-{key.hexdigest()[:16]}.npy"
        return cache.rows(path, shape, encode, "encode volumes")


def load(derivatives: Path, split: Path, group: str, part: str) -> Subjects:
    """All volumes of one part (train, val or test) of a group (base or target).

    Raises
    ------
    UserError : as `Part.find` and `Part.load`.
    """
    return Part.find(derivatives, split, group, part).load()


@dataclass(frozen=True, slots=True)
class Residuals:
    """What a denoiser is trained on.

    Parameters
    ----------
    residual : (n, C, X, Y, Z), see `models.prior.Prior`; a memory map, or an array.
    coefficients : (4 + S, C, X, Y, Z), of the conditional mean.
    design : (n, 4 + S), see `models.gaussian.design`.
    condition : (n, 2 + S).
    """

    residual: Array
    coefficients: Tensor
    design: Tensor
    condition: Tensor

    @classmethod
    def of(
        cls,
        prior: Prior | LatentPrior,
        encoded: Array,
        conditions: Sequence[Condition],
        work: Path,
        standard: bool = False,
    ) -> Residuals:
        """Subjects as a prior sees them, written to the folder `work`.

        Parameters
        ----------
        encoded : their encoded volumes, or what `models.prior.Prior.standard` makes of them.
        standard : which of the two.
        """

        def residual(i: int) -> Array:
            row, who = encoded[i : i + 1], conditions[i : i + 1]
            seen = row if standard else prior.standard(row, who)
            one: Array = prior.normal(seen, who, stretched=True)[0]
            return one

        start = prior.start
        shape = (len(encoded), start.channels, *start.mask.shape)
        cache.rows(work / _RESIDUAL, shape, residual, "residuals")
        return cls.open(prior, conditions, work)

    @classmethod
    def open(
        cls, prior: Prior | LatentPrior, conditions: Sequence[Condition], work: Path
    ) -> Residuals:
        """What `of` wrote, for the same prior and subjects."""
        seen = prior.start
        return cls(
            residual=np.load(work / _RESIDUAL, mmap_mode="r"),
            coefficients=torch.from_numpy(seen.coefficients),
            design=torch.from_numpy(design(conditions, seen.sites).astype(np.float32)),
            condition=condition_vector(conditions, seen.sites),
        )

    def __len__(self) -> int:
        return len(self.residual)

    def rows(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (B, C, X, Y, Z), conditions (B, 2 + S) and mean volumes (B, C, X, Y, Z)."""
        residual = torch.from_numpy(np.array(self.residual[chosen.numpy()]))
        mean = torch.tensordot(self.design[chosen], self.coefficients, dims=1)
        return residual, self.condition[chosen], mean
