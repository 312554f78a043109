"""What a denoiser is trained on: residuals of maps and what was expected, read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cohort import row_cache
from cohort.row_cache import Array
from cohort.template_estimator import Volumes
from contracts.condition import Condition
from models.diffusion.denoiser import condition_vector
from models.prior.prior import Prior

_IMAGES = "images.npy"


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """What the network sees of the training subjects.

    Parameters
    ----------
    images : (n, 2 C + 1, X, Y, Z): the residual of C maps, then what is expected of a brain of that
        shape, see `models.prior.prior.Prior.residual_and_expected`; a memory map, or an array.
    condition : (n, 2 + S), see `models.diffusion.denoiser.condition_vector`.
    """

    images: Array
    condition: Tensor

    @classmethod
    def of(
        cls,
        prior: Prior,
        volumes: Volumes,
        displacements: Volumes,
        conditions: Sequence[Condition],
        work: Path,
    ) -> TrainingImages:
        """Computes the images and writes them to the folder `work`.

        Parameters
        ----------
        volumes : (n, C + 1, X, Y, Z), encoded.
        displacements : (n, 3, X, Y, Z), of the same subjects, in voxels.
        """

        def images(i: int) -> Array:
            return np.concatenate(
                prior.residual_and_expected(volumes[i], displacements[i], conditions[i])
            )

        shape = (len(conditions), 2 * prior.map_count + 1, *prior.mask.shape)
        row_cache.rows(work / _IMAGES, shape, images, "training images")
        return cls.open(prior, conditions, work)

    @classmethod
    def open(cls, prior: Prior, conditions: Sequence[Condition], work: Path) -> TrainingImages:
        """Opens what `of` wrote, for the same prior and subjects."""
        return cls(
            images=np.load(work / _IMAGES, mmap_mode="r"),
            condition=condition_vector(conditions, prior.sites),
        )

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns residuals (B, C, X, Y, Z), what was expected (B, C + 1, X, Y, Z) and conditions
        (B, 2 + S) of (B,) subjects."""
        images = torch.from_numpy(np.array(self.images[chosen.numpy()]))
        maps = images.shape[1] // 2
        return images[:, :maps], images[:, maps:], self.condition[chosen]
