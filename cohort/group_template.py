"""The group template: a mean subject, and how each subject's brain is displaced from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cohort import row_cache
from cohort.interpolation import upsampled
from cohort.regression import Array, design, regress
from cohort.template_estimator import FINER, TemplateEstimator, Volumes
from contracts.condition import Condition
from contracts.space import Space

# Standard deviation of the Gaussian that smooths displacements: right for maps of 2 to 4 mm.
_SIGMA_MM = 4.0
# Components of a displacement.
AXES = 3
# The template and the displacements are found in turns: so many rounds, so many steps of
# registration in each, and so many for a subject that is registered to the final template.
_ROUNDS, _STEPS, _FINAL_STEPS = 4, 5, 12
# Updates of the template per round.
_UPDATES = 2
# The estimate after the last whole round.
_STATE = "estimate.safetensors"
_ARRAYS = ("image", "effects", "centre", "inverse_sd", "mask")


@dataclass(frozen=True, slots=True)
class GroupTemplate:
    """The template of the base group's training subjects, in the frame that they share.

    The displacement u of a subject is defined on the subject's grid, in voxels: the subject's voxel
    x corresponds to the point y = x + u(x) of the template. Sampling the template at y
    (`cohort.interpolation.displaced`) brings it to the subject; the inverse displacement brings the
    subject's maps to the template.

    Brains in a standard space still differ in shape by parts of a voxel, so that one voxel of the
    grid is fluid in some and tissue in others. A point of the template is one of the two
    (deformable templates: Joshi et al. 2004; Allassonniere et al. 2007).

    Parameters
    ----------
    image : (C, FX, FY, FZ), the mean subject in the channels of `cohort.channels`, on a grid of
        half voxels.
    effects : (4, C, X, Y, Z), what the regressors of `cohort.regression.design`, less `centre`,
        add to it. (Sites are not told apart: they differ in values, not in shape.)
    centre : (4,), mean regressors of the subjects that the template was made from.
    inverse_sd : (C, X, Y, Z), one over the standard deviation of the residuals of registration; 0
        outside the mask.
    mask : (X, Y, Z), where a brain may be.
    sigma : standard deviation of the Gaussian that smooths displacements, in voxels.
    """

    image: Array
    effects: Array
    centre: Array
    inverse_sd: Array
    mask: NDArray[np.bool_]
    sigma: float

    @classmethod
    def fit(
        cls,
        volumes: Volumes,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sigma: float = 1.0,
        work: Path | None = None,
    ) -> tuple[GroupTemplate, Volumes]:
        """Estimates the template and the displacements of encoded volumes in turns.

        The volumes are read several times, one at a time, so that they may be a memory map.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z).
        sigma : in voxels, see `smoothing_sigma`.
        work : folder for displacements. A call that was stopped goes on from it; it must belong to
            these arguments alone. None: they are kept in memory.

        Returns
        -------
        The template, and the displacements (n, 3, X, Y, Z) in voxels, equal to those that
        `displacement` finds.
        """
        if work is None:
            with TemporaryDirectory() as folder:
                template, kept = cls.fit(volumes, mask, conditions, sigma, Path(folder))
                return template, np.array(kept)
        n = len(volumes)
        rows = _design(conditions)
        centre = rows.mean(axis=0)
        effects = torch.from_numpy(regress(volumes, _without_sites(conditions)) * mask)
        image = upsampled(torch.tensordot(torch.from_numpy(centre), effects, dims=1), FINER)
        estimator = TemplateEstimator(image, effects, torch.from_numpy(rows - centre), mask)
        zero: Volumes = np.broadcast_to(np.float32(0), (n, AXES, *mask.shape))

        def register(start: Volumes, steps: int, what: str, name: str) -> Array:
            def one(i: int) -> Array:
                return estimator.estimate_displacement(i, volumes[i], start[i], steps, sigma)

            return row_cache.rows(work / f"{name}.npy", (n, AXES, *mask.shape), one, what)

        found: Volumes = zero
        first = 1
        state = work / _STATE
        if state.exists():
            first = 1 + estimator.restore(state)
            found = _centred(np.load(work / f"round-{first - 1}.npy", mmap_mode="r"))
        for k in range(first, _ROUNDS + 1):
            estimator.update_inverse_sd(volumes, found)
            what = f"template, round {k} of {_ROUNDS}"
            found = _centred(register(found, _STEPS, what, f"round-{k}"))
            for _ in range(_UPDATES):
                estimator.update_template(volumes, found)
            estimator.store(state, k)
            (work / f"round-{k - 1}.npy").unlink(missing_ok=True)
        # Generators keep the image in half precision; the displacements are those to that one.
        estimator.image = estimator.image.half().float()
        estimator.update_inverse_sd(volumes, found)
        template = cls(
            image=estimator.image.numpy(),
            effects=estimator.effects.numpy(),
            centre=centre,
            inverse_sd=estimator.inverse_sd.numpy(),
            mask=mask,
            sigma=sigma,
        )
        return template, register(zero, _FINAL_STEPS, "displacements", "displacements")

    def displacement(
        self, volume: Array, condition: Condition, boundary_only: bool = False
    ) -> Array:
        """Registers the template to one encoded volume.

        Parameters
        ----------
        volume : (C, X, Y, Z).
        boundary_only : whether only the signed distance to the brain's boundary is looked at.

        Returns
        -------
        (3, X, Y, Z), in voxels.
        """
        row = _design([condition])[0] - self.centre
        inverse_sd = torch.from_numpy(self.inverse_sd)
        if boundary_only:
            inverse_sd = inverse_sd.clone()
            inverse_sd[:-1] = 0
        estimator = TemplateEstimator(
            torch.from_numpy(self.image),
            torch.from_numpy(self.effects),
            torch.from_numpy(row[None]),
            self.mask,
            inverse_sd,
        )
        zero = np.zeros((AXES, *self.mask.shape), dtype=np.float32)
        return estimator.estimate_displacement(0, volume, zero, _FINAL_STEPS, self.sigma)

    def on_grid(self) -> Array:
        """Returns the mean subject on the grid of volumes, (C, X, Y, Z)."""
        return self.image[:, ::FINER, ::FINER, ::FINER]

    def arrays(self) -> dict[str, Any]:
        """Returns the template as arrays by name, to be stored."""
        return {name: getattr(self, name) for name in _ARRAYS} | {
            "sigma": np.float32(self.sigma).reshape(1)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> GroupTemplate:
        """Inverse of `arrays`."""
        parts = {name: arrays[name] for name in _ARRAYS}
        return cls(sigma=float(arrays["sigma"][0]), **parts)


def smoothing_sigma(space: Space) -> float:
    """Returns the standard deviation of the smoothing of displacements, in voxels of a space.

    It is rounded to single precision, in which it is stored: a later registration then finds the
    same displacement to the last bit.
    """
    return float(np.float32(_SIGMA_MM / min(space.zooms)))


class _LazyDifference(Sequence[Array]):
    """Rows less one array, subtracted when they are read."""

    def __init__(self, rows: Array, less: Array) -> None:
        self._rows, self._less = rows, less

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        return self._rows[i] - self._less


def _centred(displacements: Array) -> _LazyDifference:
    """Returns displacements less their mean: the template stays in the middle of its subjects."""
    return _LazyDifference(displacements, displacements.mean(axis=0))


def _without_sites(conditions: Sequence[Condition]) -> list[Condition]:
    return [replace(condition, site=None) for condition in conditions]


def _design(conditions: Sequence[Condition]) -> Array:
    return design(_without_sites(conditions)).astype(np.float32)
