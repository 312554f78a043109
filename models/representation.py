"""How volumes look to a generator: smooth everywhere, with the brain's outline apart."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec

Array = NDArray[np.float32]

# Depth in voxels at which the level set is cut off; about the width of the rim that varies.
_DEPTH = 3.0


def encode(volumes: Array, masks: NDArray[np.bool_], maps: tuple[MapSpec, ...]) -> Array:
    """Maps in network range, continued outside the brain, and a level set of the brain mask.

    A map drops from tissue to zero at a rim that lies elsewhere in every subject. Averages and
    Gaussians smear that step, and a network would spend its first hours on it. The signed
    distance to the rim varies smoothly, and so does a map that keeps its nearest value beyond it.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), physical units.
    masks : (n, X, Y, Z), brain.

    Returns
    -------
    (n, maps + 1, X, Y, Z); the last channel is the distance to the rim over 3 voxels, positive
    inside, cut at -1 and 1.
    """
    from scipy.ndimage import distance_transform_edt

    out = np.empty((len(volumes), len(maps) + 1, *volumes.shape[2:]), dtype=np.float32)
    for i, (volume, mask) in enumerate(zip(volumes, masks, strict=True)):
        outside, nearest = distance_transform_edt(~mask, return_indices=True)
        for k, spec in enumerate(maps):
            out[i, k] = spec.to_network(volume[k])[tuple(nearest)]
        # Half a voxel: the rim runs between the last voxel inside and the first outside.
        signed = np.where(mask, distance_transform_edt(mask) - 0.5, 0.5 - outside)
        out[i, -1] = np.clip(signed / _DEPTH, -1, 1)
    return out


def decode(channels: Array, maps: tuple[MapSpec, ...]) -> Array:
    """Maps in physical units, clipped to the possible, zero outside the brain.

    Inverse of `encode` for volumes that are zero outside their mask.
    """
    out = np.stack([m.clip(m.from_network(channels[:, i])) for i, m in enumerate(maps)], axis=1)
    return np.where(brain(channels)[:, None], out, np.float32(0))


def brain(encoded: Array) -> NDArray[np.bool_]:
    """Masks (..., X, Y, Z) of encoded volumes (..., maps + 1, X, Y, Z)."""
    inside: NDArray[np.bool_] = encoded[..., -1, :, :, :] > 0
    return inside


def reach(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Voxels (X, Y, Z) where any subject's brain is, or the level set of one still varies."""
    from scipy.ndimage import distance_transform_edt

    anywhere = reduce(np.logical_or, masks)
    near: NDArray[np.bool_] = distance_transform_edt(~anywhere) < 1.5
    return near
