"""Registration of a scan to the MNI template's working space, by dipy."""

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
# Registration on a grid of 2 mm made pairs of subjects no more alike, at three times the cost,
# because fine structure does not align between people.
GRID_MM = 4.0
_AFFINE_STEPS = (200, 100)
_SYN_STEPS = (20, 20)
_SYN_RADIUS = 2
_SYN_SMOOTHING = 1.5
# Full width at half maximum of a Gaussian over its standard deviation.
_FWHM = 2.355


@dataclass(frozen=True, slots=True)
class MniTemplate:
    """The template that scans are registered to.

    Parameters
    ----------
    t1w : (X, Y, Z) T1w intensity on the grid of `space`, zero outside the brain.
    white : (X, Y, Z) probability of white matter.
    brain : (X, Y, Z) brain mask.
    """

    space: Space
    t1w: Array
    white: Array
    brain: NDArray[np.bool_]

    def save(self, path: Path) -> None:
        """Write one `.npz` file; a stop in the middle leaves no half file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, t1w=self.t1w, white=self.white, brain=self.brain)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path, space: Space) -> MniTemplate:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(space, arrays["t1w"], arrays["white"], arrays["brain"])


@dataclass(frozen=True, slots=True)
class Warp:
    """The transform from a scan's own space to the template.

    Parameters
    ----------
    field : dipy's DiffeomorphicMap.
    zooms : (3,) voxel edges of the scan in mm.
    """

    field: Any
    zooms: NDArray[np.float64]

    def apply(self, values: Array, mask: NDArray[np.bool_], space: Space) -> Array:
        """Resample values (X, Y, Z) to `space`; values outside `mask` have no influence.

        Values on a grid finer than `space` are first averaged over the size of its voxels.
        """
        inside = mask.astype(np.float64)
        total = self._resample(np.where(mask, values, 0).astype(np.float64), space)
        weight = self._resample(inside, space)
        return np.asarray(total / np.maximum(weight, 1e-3), dtype=np.float32)

    def mask(self, mask: NDArray[np.bool_], space: Space) -> NDArray[np.bool_]:
        """Return the voxels of `space` of which more than half lies in `mask` (X, Y, Z)."""
        return np.asarray(self._resample(mask.astype(np.float64), space) > 0.5)

    def _resample(self, values: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
        smooth = _smooth(values, self.zooms, space.zooms[0])
        moved = self.field.transform(smooth, out_shape=space.shape, out_grid2world=space.matrix)
        return np.asarray(moved, dtype=np.float64)


def load_mni_template(space: Space) -> MniTemplate:
    """Return the template on `space`, from files that nilearn carries; nothing is downloaded."""
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
    return MniTemplate(space, np.where(inside, t1w, 0).astype(np.float32), white, inside)


def register(
    fa: Array, md: Array, mask: NDArray[np.bool_], affine: NDArray[np.float64], target: MniTemplate
) -> Warp:
    """Register a scan to `target`: an affine transform, then SyN.

    The affine maximises mutual information (Mattes et al., IEEE TMI 2003), SyN cross correlation
    (Avants et al., Med. Image Anal. 2008). In its last, affine step mutual information is computed
    inside the template's brain only; with the background it would match the outlines of the two
    masks, which are drawn in different ways.

    Parameters
    ----------
    fa, md, mask : (X, Y, Z) on the grid of `affine`; MD in mm2/s.
    affine : (4, 4) voxel index to mm in RAS+.
    target : on the grid of `registration_space`.
    """
    from dipy.align import transforms
    from dipy.align.imaffine import (
        AffineRegistration,
        MutualInformationMetric,
        transform_centers_of_mass,
    )
    from dipy.align.imwarp import SymmetricDiffeomorphicRegistration, VerbosityLevels
    from dipy.align.metrics import CCMetric
    from nibabel.affines import voxel_sizes
    from scipy.ndimage import binary_erosion

    zooms = voxel_sizes(affine)
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
    """Return a contrast like that of a T1w image.

    White matter is bright because of its FA, fluid is dark because of its MD, and grey matter
    lies between.
    """
    white = np.clip(fa, 0, 0.7) / 0.7
    tissue = 1 - np.clip((md - 0.7e-3) / 1.6e-3, 0, 1)
    return np.asarray(white + tissue, dtype=np.float64)


def registration_space() -> Space:
    """Return the grid on which scans are registered."""
    return mni_space(GRID_MM)


def _on(space: Space, image: Any) -> Array:
    """Resample an aligned image on a finer grid to `space`, averaged over its voxels."""
    from dipy.align.imaffine import AffineMap
    from nibabel.affines import voxel_sizes

    values = np.asarray(image.dataobj, dtype=np.float64)
    zooms = voxel_sizes(image.affine)
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
    """Smooth values until their point spread is that of voxels of `target_mm`.

    Along an axis where the voxels, `zooms` (3,) mm, are that large already, nothing is smoothed.
    """
    from scipy.ndimage import gaussian_filter

    sigma_mm = np.sqrt(np.maximum(target_mm**2 - zooms**2, 0)) / _FWHM
    return np.asarray(gaussian_filter(values, sigma_mm / zooms, mode="constant"))
