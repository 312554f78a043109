"""From a subject's own space to the working space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.space import Space, mni_space

Array = NDArray[np.float32]
METHOD = (
    "FA and MD combined to a T1w-like contrast, registered to the MNI152 2009a symmetric T1w "
    "template (nilearn) at 4 mm: affine by mutual information, SyN by cross correlation (dipy)"
)
# Fine structure does not align between people; on a 2 mm grid pairs of subjects came out no more
# alike, at three times the cost.
GRID_MM = 4.0
_AFFINE_STEPS = (200, 100)
_SYN_STEPS = (20, 20)
_SYN_RADIUS = 2
_SYN_SMOOTHING = 1.5
# Full width at half maximum -> standard deviation of a Gaussian.
_FWHM = 2.355


@dataclass(frozen=True, slots=True)
class Target:
    """T1w intensity, white matter probability and brain mask, each (X, Y, Z) on `space`."""

    space: Space
    t1w: Array
    white: Array
    brain: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write as `.npz`, for the processes that register."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, t1w=self.t1w, white=self.white, brain=self.brain)

    @classmethod
    def load(cls, path: Path, space: Space) -> Target:
        """Inverse of `save`."""
        with np.load(path) as arrays:
            return cls(space, arrays["t1w"], arrays["white"], arrays["brain"])


@dataclass(frozen=True, slots=True)
class Warp:
    """The map from a subject's grid to template coordinates."""

    field: Any  # dipy's DiffeomorphicMap
    zooms: NDArray[np.float64]

    def apply(self, values: Array, mask: NDArray[np.bool_], space: Space) -> Array:
        """Resample `values` (X, Y, Z) to `space` once, without mixing in what is outside `mask`.

        Finer input is averaged over the size of the output voxels first.
        """
        inside = mask.astype(np.float64)
        total = self._resample(np.where(mask, values, 0).astype(np.float64), space)
        weight = self._resample(inside, space)
        return np.asarray(total / np.maximum(weight, 1e-3), dtype=np.float32)

    def mask(self, mask: NDArray[np.bool_], space: Space) -> NDArray[np.bool_]:
        """Voxels of `space` that lie in `mask` by more than half."""
        return np.asarray(self._resample(mask.astype(np.float64), space) > 0.5)

    def _resample(self, values: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
        smooth = _smooth(values, self.zooms, space.zooms[0])
        moved = self.field.transform(smooth, out_shape=space.shape, out_grid2world=space.matrix)
        return np.asarray(moved, dtype=np.float64)


def load_target(space: Space) -> Target:
    """The template on `space`, from the files that nilearn carries (nothing is downloaded)."""
    from nilearn import datasets

    t1w, white, brain = (
        _on(space, load(resolution=1))
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    inside = brain > 0.5
    return Target(space, np.where(inside, t1w, 0).astype(np.float32), white, inside)


def register(
    fa: Array, md: Array, mask: NDArray[np.bool_], affine: NDArray[np.float64], target: Target
) -> Warp:
    """Align a subject to `target` (on a grid of `GRID_MM`).

    Affine: Mattes 2003; SyN: Avants 2008. The affine's mutual information is taken inside the
    template's brain alone; with the background it would fit the outlines of the two masks, which
    are drawn differently.

    Parameters
    ----------
    fa, md, mask : (X, Y, Z) on the grid of `affine`; MD in mm2/s.
    """
    from dipy.align import transforms
    from dipy.align.imaffine import (
        AffineRegistration,
        MutualInformationMetric,
        transform_centers_of_mass,
    )
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration, VerbosityLevels
    from dipy.align.metrics import CCMetric
    from scipy.ndimage import binary_erosion

    zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    fixed, grid = target.t1w.astype(np.float64), target.space.matrix
    moving = _smooth(t1w_like(fa, md) * mask, zooms, GRID_MM)
    search = AffineRegistration(
        metric=MutualInformationMetric(nbins=32),
        level_iters=list(_AFFINE_STEPS),
        sigmas=[1.0, 0.0],
        factors=[2, 1],
        verbosity=0,
    )
    inner = binary_erosion(target.brain).astype(np.int32)
    matrix = transform_centers_of_mass(fixed, grid, moving, affine).affine
    for kind, where in (
        (transforms.TranslationTransform3D(), None),
        (transforms.RigidTransform3D(), None),
        (transforms.AffineTransform3D(), inner),
    ):
        matrix = search.optimize(
            fixed,
            moving,
            kind,
            None,
            static_grid2world=grid,
            moving_grid2world=affine,
            starting_affine=matrix,
            static_mask=where,
        ).affine
    syn = SymmetricDiffeomorphicRegistration(
        CCMetric(3, sigma_diff=_SYN_SMOOTHING, radius=_SYN_RADIUS), level_iters=list(_SYN_STEPS)
    )
    syn.verbosity = VerbosityLevels.NONE
    field = syn.optimize(
        fixed, moving, static_grid2world=grid, moving_grid2world=affine, prealign=matrix
    )
    return Warp(field, zooms)


def t1w_like(fa: Array, md: Array) -> NDArray[np.float64]:
    """Bright white matter (by FA), dark fluid (by MD), between them grey matter: as in T1w."""
    white = np.clip(fa, 0, 0.7) / 0.7
    tissue = 1 - np.clip((md - 0.7e-3) / 1.6e-3, 0, 1)
    return np.asarray(white + tissue, dtype=np.float64)


def registration_space() -> Space:
    """The grid that subjects are aligned on."""
    return mni_space(GRID_MM)


def _on(space: Space, image: Any) -> Array:
    """A finer, aligned image averaged and resampled to `space`."""
    from dipy.align.imaffine import AffineMap

    values = np.asarray(image.dataobj, dtype=np.float64)
    zooms = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    identity = AffineMap(
        np.eye(4),
        domain_grid_shape=space.shape,
        domain_grid2world=space.matrix,
        codomain_grid_shape=values.shape,
        codomain_grid2world=image.affine,
    )
    return np.asarray(identity.transform(_smooth(values, zooms, space.zooms[0])), dtype=np.float32)


def _smooth(
    values: NDArray[np.float64], zooms: NDArray[np.float64], target_mm: float
) -> NDArray[np.float64]:
    """Widen the point spread from `zooms` to `target_mm` where that is coarser."""
    from scipy.ndimage import gaussian_filter

    sigma_mm = np.sqrt(np.maximum(target_mm**2 - zooms**2, 0)) / _FWHM
    return np.asarray(gaussian_filter(values, sigma_mm / zooms, mode="constant"))
