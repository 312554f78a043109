"""The brain mask of a DWI series, and tools for any mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contracts.errors import UserError

METHOD = "median Otsu on bias-flattened b0 (dipy), largest component, holes filled"
# Width of the smoothing that estimates the shading of a head coil.
_BIAS_MM = 30.0
# Bridges to eyes and neck are cut if they are thinner than twice this.
_BRIDGE_MM = 5.0
# Gaps are closed if they are narrower than twice this.
_GAP_MM = 10.0


def brain_mask(b0: NDArray[np.float32], zooms: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the brain mask of a mean unweighted volume.

    Parameters
    ----------
    b0 : (X, Y, Z).
    zooms : (3,) voxel edges in mm.

    Raises
    ------
    UserError : if the volume is empty.
    """
    from dipy.segment.mask import median_otsu

    if not np.any(b0 > 0):
        raise UserError("the unweighted volumes are empty: is the series cut short?")
    _, rough = median_otsu(_flatten(b0, zooms), median_radius=2, numpass=1)
    return _tidy(np.asarray(rough, dtype=np.bool_), zooms)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected component; voxels connect through their faces."""
    from scipy import ndimage

    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    found: NDArray[np.bool_] = labels == int(np.argmax(sizes))
    return found


def roughness(mask: NDArray[np.bool_]) -> float:
    """Return how ragged the outline of a mask is.

    It is the number of voxels that a majority vote of the neighbourhood (3 x 3 x 3 voxels) would
    take in or out of the mask, as a share of the mask's voxels at its boundary.
    """
    from scipy import ndimage

    edge = (mask & ~ndimage.binary_erosion(mask)).sum()
    share = ndimage.uniform_filter(mask.astype(np.float64), 3, mode="constant")
    return float(((share > 0.5) ^ mask).sum() / max(edge, 1))


def solid(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest connected component with its holes filled."""
    from scipy import ndimage

    return np.asarray(ndimage.binary_fill_holes(largest_component(mask)), dtype=np.bool_)


def _flatten(b0: NDArray[np.float32], zooms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide a volume by the local mean of its foreground.

    Deep tissue is far from the coil and would look dark otherwise.
    """
    from dipy.segment.threshold import otsu
    from scipy.ndimage import gaussian_filter

    root = np.sqrt(np.maximum(b0, 0))
    head = root > otsu(root)
    capped = np.clip(b0, 0, np.percentile(b0[head], 98))
    sigma = _BIAS_MM / zooms
    weight = gaussian_filter(head.astype(np.float64), sigma, mode="constant")
    field = gaussian_filter(capped * head, sigma, mode="constant") / np.maximum(weight, 0.05)
    return np.asarray(capped / np.maximum(field, 0.1 * field.max()), dtype=np.float64)


def _tidy(mask: NDArray[np.bool_], zooms: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Cut thin bridges, keep the largest component, and close gaps and holes."""
    from scipy.ndimage import distance_transform_edt

    def within(region: NDArray[np.bool_], reach_mm: float) -> NDArray[np.bool_]:
        return np.asarray(distance_transform_edt(~region, sampling=zooms) <= reach_mm)

    pad = int(np.ceil(_GAP_MM / zooms.min())) + 1
    padded = np.pad(mask, pad)
    core = largest_component(~within(~padded, _BRIDGE_MM))
    if not core.any():  # A thin slab has no core.
        return solid(mask)
    brain = within(core, _BRIDGE_MM + zooms.max()) & padded
    closed = ~within(~within(brain, _GAP_MM), _GAP_MM)
    return solid(closed | brain)[pad:-pad, pad:-pad, pad:-pad]
