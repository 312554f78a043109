"""Local texture of a volume: grain, outline, pieces and holes, in single numbers.

The eye sees these at first sight, and means over large blocks do not: a ragged outline, specks
beside the brain, holes in tracts, noise from voxel to voxel or its absence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cohort.masking import roughness

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# The measures of local texture and how a reader sees them. Those of `DECIDING` are measures of
# fidelity one by one; the classifier sees all.
LABELS = {
    "fa_grain": "FA, grain inside",
    "md_grain": "MD, grain inside",
    "fa_edge_grain": "FA, grain at the boundary",
    "md_edge_grain": "MD, grain at the boundary",
    "grain_coupling": "Correlation of the grain of FA and MD",
    "boundary_roughness": "Roughness of the boundary",
    "tract_holes": "Holes in tracts",
    "fa_grain_tails": "FA, single voxels that stick out",
    "md_grain_tails": "MD, single voxels that stick out",
    "fa_grain_range": "FA, likeness of the grain of neighbours",
    "md_grain_range": "MD, likeness of the grain of neighbours",
    "brain_holes": "Holes in the brain",
    "tract_roughness": "Roughness of tracts",
    "tract_pieces": "Pieces of tracts",
    "fluid_pieces": "Pieces of fluid",
}
NAMES = tuple(LABELS)
DECIDING = NAMES[:7]

# The neighbourhood whose mean is taken off to see the grain, in voxels.
_WINDOW = 3
_FLOOR = 1e-12


def local_texture(
    fa: Float64Array, md: Float64Array, brain: BoolArray, tracts: BoolArray, fluid: BoolArray
) -> Float64Array:
    """Returns the measures `NAMES` of one volume, (15,).

    - grain: log10 of the mean square of a map less its mean over the neighbourhood of
      3 x 3 x 3 voxels, of which those outside the brain do not count. It is taken over voxels all
      of whose six neighbours are brain (inside), and over the others (at the boundary).
    - coupling: correlation of the grain of both maps, inside.
    - tails: log10 of the kurtosis of the grain, inside. It is large where few voxels stick out.
    - range: mean correlation of the grain of neighbouring voxels, inside.
    - roughness: of the brain and of tracts, see `cohort.masking.roughness`.
    - holes in tracts: voxels of the brain that a morphological closing of the tracts adds, as a
      share of the tracts' voxels. Holes in the brain: voxels that the brain encloses, likewise.
    - pieces: log10 of the number of connected pieces per 1,000 voxels.

    Parameters
    ----------
    fa, md : (X, Y, Z), without unit and in 1e-3 mm2/s.
    brain, tracts, fluid : (X, Y, Z), the voxels of the brain, of white matter and of fluid.
    """
    from scipy.ndimage import binary_closing, binary_erosion, binary_fill_holes

    inside = binary_erosion(brain)
    edge = brain & ~inside
    grains = [_grain(image, brain) for image in (fa, md)]
    found = {}
    for name, grain in zip(("fa", "md"), grains, strict=True):
        found[f"{name}_grain"] = _log(_mean(grain[inside] ** 2))
        found[f"{name}_edge_grain"] = _log(_mean(grain[edge] ** 2))
        found[f"{name}_grain_tails"] = _log(
            _mean(grain[inside] ** 4) / max(_mean(grain[inside] ** 2) ** 2, _FLOOR)
        )
        found[f"{name}_grain_range"] = _neighbour_correlation(grain, inside)
    found["grain_coupling"] = correlation(grains[0][inside], grains[1][inside])
    found["boundary_roughness"] = roughness(brain)
    closed = binary_closing(tracts) & brain
    found["tract_holes"] = float((closed & ~tracts).sum() / max(tracts.sum(), 1))
    found["brain_holes"] = float((binary_fill_holes(brain) & ~brain).sum() / max(brain.sum(), 1))
    found["tract_roughness"] = roughness(tracts)
    found["tract_pieces"] = _log(1e3 * pieces(tracts) / max(tracts.sum(), 1))
    found["fluid_pieces"] = _log(1e3 * pieces(fluid) / max(fluid.sum(), 1))
    return np.array([found[name] for name in NAMES])


def pieces(mask: BoolArray) -> int:
    """Returns the number of connected pieces of a mask; voxels are connected by their faces."""
    from scipy.ndimage import label

    return int(label(mask)[1])


def _grain(image: Float64Array, brain: BoolArray) -> Float64Array:
    """Returns an image less its mean over the neighbourhood within the brain; 0 outside."""
    from scipy.ndimage import uniform_filter

    share = uniform_filter(brain.astype(np.float64), _WINDOW, mode="constant")
    mean = uniform_filter(image * brain, _WINDOW, mode="constant") / np.maximum(share, _FLOOR)
    grain: Float64Array = np.where(brain, image - mean, 0.0)
    return grain


def _neighbour_correlation(grain: Float64Array, inside: BoolArray) -> float:
    products, count = 0.0, 0
    for axis in range(3):
        here, there = np.moveaxis(grain, axis, 0)[:-1], np.moveaxis(grain, axis, 0)[1:]
        both = np.moveaxis(inside, axis, 0)[:-1] & np.moveaxis(inside, axis, 0)[1:]
        products += float((here * there)[both].sum())
        count += int(both.sum())
    return products / max(count, 1) / max(_mean(grain[inside] ** 2), _FLOOR)


def correlation(a: Float64Array, b: Float64Array) -> float:
    """Returns the correlation of two (n,) arrays; 0 if one does not vary or n is below 3."""
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _mean(values: Float64Array) -> float:
    return float(values.mean()) if values.size else 0.0


def _log(value: float) -> float:
    return float(np.log10(value + _FLOOR))
