"""What a denoiser is trained on: the residuals of a prior, read from a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cohort import row_cache
from cohort.row_cache import Array
from contracts.condition import Condition
from models.diffusion.denoiser import condition_vector
from models.prior.prior import Prior

_RESIDUAL = "residual.npy"


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals and conditions of the training subjects.

    Parameters
    ----------
    residual : (n, C, X, Y, Z), see `models.prior.prior.Prior`; a memory map, or an array.
    condition : (n, 2 + S), see `models.diffusion.denoiser.condition_vector`.
    """

    residual: Array
    condition: Tensor

    @classmethod
    def of(
        cls,
        prior: Prior,
        volumes: Array,
        conditions: Sequence[Condition],
        work: Path,
        relative: bool = False,
    ) -> Residuals:
        """Computes the residuals and writes them to the folder `work`.

        Parameters
        ----------
        volumes : encoded volumes, or what `Prior.relative` makes of them.
        relative : which of the two.
        """

        def seen(i: int) -> Array:
            one, who = volumes[i : i + 1], conditions[i : i + 1]
            row: Array = (one if relative else prior.to_relative(one, who))[0]
            return row

        return cls.of_rows(prior, seen, conditions, work)

    @classmethod
    def of_rows(
        cls,
        prior: Prior,
        relative: Callable[[int], Array],
        conditions: Sequence[Condition],
        work: Path,
    ) -> Residuals:
        """Computes the residuals one by one and writes them to the folder `work`.

        Parameters
        ----------
        relative : gives the i-th subject's relative volume, (C, X, Y, Z).
        """

        def residual(i: int) -> Array:
            made: Array = prior.residual_of_relative(relative(i)[None], conditions[i : i + 1])[0]
            return made

        shape = (len(conditions), prior.channels, *prior.mask.shape)
        row_cache.rows(work / _RESIDUAL, shape, residual, "residuals")
        return cls.open(prior, conditions, work)

    @classmethod
    def open(cls, prior: Prior, conditions: Sequence[Condition], work: Path) -> Residuals:
        """Opens what `of` wrote, for the same prior and subjects."""
        return cls(
            residual=np.load(work / _RESIDUAL, mmap_mode="r"),
            condition=condition_vector(conditions, prior.sites),
        )

    def __len__(self) -> int:
        return len(self.residual)

    def rows(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the residuals (B, C, X, Y, Z) and conditions (B, 2 + S) of (B,) subjects."""
        residual = torch.from_numpy(np.array(self.residual[chosen.numpy()]))
        return residual, self.condition[chosen]
