"""The group template: a mean subject, and the displacement of each subject to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cohort.interpolation import upsampled
from cohort.regression import Array, design, regress
from cohort.template_estimator import FINER, TemplateEstimator
from cohort.threads import each
from contracts.condition import Condition

# `contracts.console.progress`, or something of its signature.
Progress = Callable[[Iterable[Array], int, str], Iterable[Array]]
# Components of a displacement.
AXES = 3
# The template and the displacements are found in turns: so many rounds, so many steps of
# registration in each, and so many for a subject that is registered to the final template.
_ROUNDS, _STEPS, _FINAL_STEPS = 4, 5, 12
# Updates of the template per round.
_UPDATES = 2
_ARRAYS = ("image", "effects", "centre", "precision", "mask")


@dataclass(frozen=True, slots=True)
class GroupTemplate:
    """The template of a group, which is moved to each subject by a smooth displacement u.

    Brains that are registered to a standard space still differ in shape by parts of a voxel, so
    that a voxel of the grid is fluid in some and tissue in others. In the coordinates y = x + u(x)
    of a template it is one of them (deformable templates: Joshi et al. 2004; Allassonniere et al.
    2007).

    Parameters
    ----------
    image : (C, FX, FY, FZ), the mean subject in the channels of `cohort.channels`, on a grid of
        half voxels.
    effects : (4 + S, C, X, Y, Z), what the regressors of `cohort.regression.design`, less
        `centre`, add to it.
    centre : (4 + S,), mean regressors of the subjects that the template was made from.
    precision : (C, X, Y, Z), one over the standard deviation of what registration leaves; 0
        outside the mask.
    mask : (X, Y, Z), where a brain may be.
    width : of the smoothing of displacements, in voxels.
    sites : that the effects tell apart.
    """

    image: Array
    effects: Array
    centre: Array
    precision: Array
    mask: NDArray[np.bool_]
    width: float
    sites: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        volumes: Sequence[Array] | Array,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
        width: float = 1.0,
        scratch: Path | None = None,
        progress: Progress = lambda items, total, what: items,
    ) -> tuple[GroupTemplate, Array]:
        """Estimates the template and the displacements of encoded volumes in turns.

        The volumes are read several times, one at a time, so that they may be a memory map.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z).
        width : in voxels; 4 mm are right for maps of 2 to 4 mm.
        scratch : folder for the displacements; None: they are kept in memory.
        progress : shows how far the work is.

        Returns
        -------
        The template, and the displacements (n, 3, X, Y, Z) in voxels, equal to those that
        `displacement` finds.
        """
        n, shape = len(volumes), mask.shape
        rows = design(conditions, sites).astype(np.float32)
        centre = rows.mean(axis=0)
        effects = torch.from_numpy(regress(volumes, conditions, sites) * mask)
        image = upsampled(torch.tensordot(torch.from_numpy(centre), effects, dims=1), FINER)
        found = _array(scratch, (n, AXES, *shape))
        estimator = TemplateEstimator(image, effects, torch.from_numpy(rows - centre), mask)

        def register(start: Array, steps: int, what: str) -> None:
            estimator.update_precision(volumes, found)

            def one(i: int) -> Array:
                return estimator.registered(i, volumes[i], start[i], steps, width)

            for i, displacement in enumerate(progress(each(one, n), n, what)):
                found[i] = displacement

        for k in range(_ROUNDS):
            register(found, _STEPS, f"template, round {k + 1} of {_ROUNDS}")
            # The template stays in the middle of its subjects.
            found -= found.mean(axis=0, keepdims=True)
            for _ in range(_UPDATES):
                estimator.update_template(volumes, found)
        register(np.broadcast_to(np.float32(0), found.shape), _FINAL_STEPS, "displacements")
        template = cls(
            image=estimator.image.numpy(),
            effects=estimator.effects.numpy(),
            centre=centre,
            precision=estimator.precision.numpy(),
            mask=mask,
            width=width,
            sites=sites,
        )
        return template, found

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

        Raises
        ------
        UserError : if the condition names a site that the template does not know.
        """
        row = design([condition], self.sites)[0].astype(np.float32) - self.centre
        precision = torch.from_numpy(self.precision)
        if boundary_only:
            precision = precision.clone()
            precision[:-1] = 0
        estimator = TemplateEstimator(
            torch.from_numpy(self.image),
            torch.from_numpy(self.effects),
            torch.from_numpy(row[None]),
            self.mask,
            precision,
        )
        nothing = np.zeros((AXES, *self.mask.shape), dtype=np.float32)
        return estimator.registered(0, volume, nothing, _FINAL_STEPS, self.width)

    def on_grid(self) -> Array:
        """Returns the mean subject on the grid of volumes, (C, X, Y, Z)."""
        return self.image[:, ::FINER, ::FINER, ::FINER]

    def arrays(self) -> dict[str, Any]:
        """Returns everything but the sites as arrays by name, to be stored."""
        return {name: getattr(self, name) for name in _ARRAYS} | {
            "width": np.float32(self.width).reshape(1)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], sites: tuple[str, ...]) -> GroupTemplate:
        """Inverse of `arrays`."""
        parts = {name: arrays[name] for name in _ARRAYS}
        return cls(width=float(arrays["width"][0]), sites=sites, **parts)


def _array(folder: Path | None, shape: tuple[int, ...]) -> Array:
    """Returns an array of zeros, in a file where there is a folder."""
    if folder is None:
        return np.zeros(shape, dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    mapped: Array = np.lib.format.open_memmap(
        folder / "displacements.npy", mode="w+", dtype=np.float32, shape=shape
    )
    return mapped
