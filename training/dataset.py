"""A split of a cohort, in memory, as the training loop reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.derivatives import Derivatives
from cohort.split import Manifest
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import MapSpec
from contracts.space import Space
from models.generator import Generator, condition_vector

# A regression on age, age squared and sex, and a spread around it.
_FEWEST_SUBJECTS = 8


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one part of a split.

    Parameters
    ----------
    maps : the cohort's, in the order of the volumes' second axis.
    volumes : (n, maps, X, Y, Z), physical units.
    masks : (n, X, Y, Z).
    digest : short hash of ids, conditions and volumes.
    """

    ids: tuple[str, ...]
    maps: tuple[MapSpec, ...]
    volumes: NDArray[np.float32]
    masks: NDArray[np.bool_]
    conditions: tuple[Condition, ...]
    space: Space
    digest: str


def load(derivatives: Path, split: Path, group: str, part: str) -> Subjects:
    """Read one part (train, val or test) of a group (base or target).

    Raises
    ------
    UserError : if the part is empty, or a volume is missing or not in the cohort's space.
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
    volumes = cohort.load(ids, cohort.maps)
    conditions = tuple(cohort.conditions(ids))
    content = hashlib.sha256(repr((ids, conditions)).encode())
    content.update(volumes.tobytes())
    return Subjects(
        ids,
        cohort.maps,
        volumes,
        cohort.masks(ids),
        conditions,
        cohort.space,
        content.hexdigest()[:16],
    )


@dataclass(frozen=True, slots=True)
class Residuals:
    """What a denoiser is trained on.

    Parameters
    ----------
    residual : (n, C, X, Y, Z), see `models.prior.Prior`.
    mean : (n, C, X, Y, Z), conditional means.
    condition : (n, 2).
    """

    residual: Tensor
    mean: Tensor
    condition: Tensor

    @classmethod
    def of(cls, generator: Generator, subjects: Subjects) -> Residuals:
        """The subjects as the generator's prior sees them."""
        volumes = generator.encode(subjects.volumes, subjects.masks)
        conditions: Sequence[Condition] = subjects.conditions
        return cls(
            residual=torch.from_numpy(generator.prior.residual(volumes, conditions)),
            mean=torch.from_numpy(generator.prior.mean(conditions)),
            condition=condition_vector(conditions),
        )
