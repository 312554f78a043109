"""Anatomy of the MNI152 template, from which every simulated subject is deformed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.space import Space

Array = NDArray[np.float32]

# Intensities of nilearn's T1w template, 0 to 1: a voxel is cerebrospinal fluid below the first
# and holds no fluid above the second.
_T1_CSF, _T1_GREY = 0.35, 0.63
# The shipped maps of grey and white matter are averages over 152 heads and therefore blurred. A
# power above 1 sharpens them to what one head shows.
_SHARPNESS = 1.6
# Ellipsoids around the deep nuclei of the right half of the brain: centre and half-axes in mm.
_NUCLEI: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "thalamus": ((12.0, -19.0, 7.5), (9.0, 13.5, 9.0)),
    "caudate": ((13.0, 13.0, 8.0), (5.0, 9.0, 9.5)),
    "caudate_body": ((16.5, -3.0, 18.5), (3.5, 11.0, 4.5)),
    "putamen": ((26.5, 3.0, 1.0), (5.5, 15.0, 8.5)),
    "pallidum": ((19.5, -4.0, -0.5), (4.5, 7.5, 5.0)),
}
_THALAMUS = "thalamus"


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Tissue fractions and landmarks on the grid of `space`; each array is (X, Y, Z).

    Parameters
    ----------
    brain : true inside the skull, fluid included.
    white, grey, fluid : volume fractions, which sum to 1 in the brain.
    deep : share of the grey matter that belongs to deep nuclei, 0 to 1; the rest is cortex.
    thalamus : share of the grey matter that belongs to the thalamus, 0 to 1.
    ventricle : true in the lateral and third ventricles.
    ventricle_mm : distance to the ventricles' wall in mm, negative inside.
    """

    space: Space
    brain: NDArray[np.bool_]
    white: Array
    grey: Array
    fluid: Array
    deep: Array
    thalamus: Array
    ventricle: NDArray[np.bool_]
    ventricle_mm: Array


def build_anatomy(space: Space) -> Anatomy:
    """Return the anatomy of the ICBM152 2009a symmetric template, which nilearn ships, on `space`.

    Copyright of the template: McConnell Brain Imaging Centre, Montreal Neurological Institute,
    McGill University (Fonov et al., NeuroImage 2011); free to use with this notice.
    """
    from nilearn import datasets
    from scipy import ndimage

    t1 = _resample(datasets.load_mni152_template(resolution=1), space)
    grey = _resample(datasets.load_mni152_gm_template(resolution=1), space)
    white = _resample(datasets.load_mni152_wm_template(resolution=1), space)
    brain = ndimage.binary_fill_holes(ndimage.binary_opening(t1 > 0.10))
    fluid = np.clip((_T1_GREY - t1) / (_T1_GREY - _T1_CSF), 0, 1) * brain
    centres = space.centres()
    deep, thalamus = _nuclei(centres)

    # The template's T1w intensity of thalamus and pallidum is close to that of white matter, so
    # the tissue maps take them for white matter; they are grey.
    white = white * (1 - 0.80 * deep)
    grey = np.maximum(grey, deep * (1 - white))
    share = white**_SHARPNESS / np.maximum(white**_SHARPNESS + grey**_SHARPNESS, 1e-6)
    share = np.where(white + grey < 0.02, 0, share)
    white = (1 - fluid) * share * brain
    grey = (1 - fluid) * (1 - share) * brain

    ventricle = _ventricle(fluid, brain, centres, space)
    outside = ndimage.distance_transform_edt(~ventricle, sampling=space.zooms)
    inside = ndimage.distance_transform_edt(ventricle, sampling=space.zooms)
    return Anatomy(
        space=space,
        brain=brain,
        white=white.astype(np.float32),
        grey=grey.astype(np.float32),
        fluid=fluid.astype(np.float32),
        deep=deep.astype(np.float32),
        thalamus=thalamus.astype(np.float32),
        ventricle=ventricle,
        ventricle_mm=(outside - inside).astype(np.float32),
    )


def _resample(image: Any, space: Space) -> NDArray[np.float64]:
    from nibabel.processing import resample_from_to
    from nibabel.spatialimages import SpatialImage
    from scipy import ndimage

    data = np.asarray(image.dataobj, dtype=np.float32)
    width = max(space.zooms[0] - 1.0, 0.0) / 2.355
    smooth = ndimage.gaussian_filter(data, width) if width else data
    moved = resample_from_to(
        SpatialImage(smooth, image.affine), (space.shape, space.matrix), order=1
    )
    values: NDArray[np.float64] = np.asarray(moved.dataobj, dtype=np.float64)
    return values


def _nuclei(centres: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the membership, 0 to 1, of all deep nuclei together and of the thalamus alone."""
    mirrored = np.concatenate([np.abs(centres[..., :1]), centres[..., 1:]], axis=-1)
    members = {}
    for name, (centre, axes) in _NUCLEI.items():
        radius = np.linalg.norm((mirrored - centre) / np.array(axes), axis=-1)
        edge_mm = (radius - 1) * min(axes)
        members[name] = 1 / (1 + np.exp(edge_mm / 0.8))
    return np.max(list(members.values()), axis=0), members[_THALAMUS]


def _ventricle(
    fluid: NDArray[np.float64],
    brain: NDArray[np.bool_],
    centres: NDArray[np.float64],
    space: Space,
) -> NDArray[np.bool_]:
    """Return the fluid that lies far from the brain's surface and near its centre."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(brain, sampling=space.zooms)
    x, y, z = np.moveaxis(centres, -1, 0)
    near = (np.abs(x) < 34) & (y > -62) & (y < 36) & (z > -16) & (z < 34) & (depth > 22)
    parts, count = ndimage.label((fluid > 0.5) & near)
    volumes = ndimage.sum(np.ones_like(fluid), parts, range(1, count + 1)) * space.voxel_ml
    ventricle: NDArray[np.bool_] = np.isin(parts, 1 + np.flatnonzero(volumes > 0.6))
    return ventricle
