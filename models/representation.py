"""How volumes look to a generator: smooth everywhere, with the brain's outline apart."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from contracts import eigenvalues
from contracts.errors import UserError
from contracts.maps import AD, RD, MapSpec

Array = NDArray[np.float32]

# Unit of the level set in voxels, and how far it goes on outside; about the width of the rim that
# varies. It is not cut off inside: what is the same in everybody has no distribution.
_DEPTH = 3.0


def channels(maps: tuple[MapSpec, ...]) -> int:
    """C of `encode`: the maps but for RD, and the level set."""
    return sum(m != RD for m in maps) + 1


def encode(volumes: Array, masks: NDArray[np.bool_], maps: tuple[MapSpec, ...]) -> Array:
    """Maps in network range, continued outside the brain, and a level set of the brain mask.

    A map drops from tissue to zero at a rim that lies elsewhere in every subject. Averages and
    Gaussians smear that step, and a network would spend its first hours on it. The signed
    distance to the rim varies smoothly, and so does a map that keeps its nearest value beyond it.

    AD is seen as the shape that it gives the tensor (`contracts.eigenvalues`): a smooth, bounded
    channel, any value of which makes possible eigenvalues with any FA and MD. AD itself, generated
    beside them, misses the narrow interval that they allow in two voxels of three. RD is not
    seen, since it follows.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), physical units.
    masks : (n, X, Y, Z), brain.

    Returns
    -------
    (n, C, X, Y, Z), the maps but for RD, then the distance to the rim over 3 voxels, positive
    inside, cut at -1.

    Raises
    ------
    UserError : if the volumes have other maps.
    """
    from scipy.ndimage import distance_transform_edt

    if volumes.shape[1] != len(maps):
        labels = ", ".join(m.label for m in maps)
        raise UserError(
            f"expected volumes of {labels}, found {volumes.shape[1]} maps: generator and cohort "
            "differ in derive.maps; train the generator again"
        )
    out = np.empty((len(volumes), channels(maps), *volumes.shape[2:]), dtype=np.float32)
    for i, (volume, mask) in enumerate(zip(volumes, masks, strict=True)):
        outside, nearest = distance_transform_edt(~mask, return_indices=True)
        for k, spec in enumerate(m for m in maps if m != RD):
            values = eigenvalues.shape(*volume[:3]) if spec == AD else spec.to_network(volume[k])
            out[i, k] = values[tuple(nearest)]
        out[i, -1] = _level(mask, outside)
    return out


def level_set(mask: NDArray[np.bool_]) -> Array:
    """The last channel of `encode`, (X, Y, Z), of one brain mask."""
    from scipy.ndimage import distance_transform_edt

    return _level(mask, distance_transform_edt(~mask))


def at_depth(voxels: float) -> np.float32:
    """The level set so many voxels inside the rim, which runs half a voxel beyond the last."""
    return np.float32(voxels / _DEPTH)


def _level(mask: NDArray[np.bool_], outside: NDArray[np.float64]) -> Array:
    from scipy.ndimage import distance_transform_edt

    # Half a voxel: the rim runs between the last voxel inside and the first outside.
    signed = np.where(mask, distance_transform_edt(mask) - 0.5, 0.5 - outside)
    level: Array = np.maximum(signed / _DEPTH, -1).astype(np.float32)
    return level


def decode(encoded: Array, maps: tuple[MapSpec, ...]) -> Array:
    """Maps in physical units, clipped to the possible, zero outside the brain.

    Inverse of `encode` for volumes that are zero outside their mask.
    """
    made = [m.clip(m.from_network(encoded[:, i])) for i, m in enumerate(maps[:2])]
    if AD in maps:
        ad = eigenvalues.axial(made[0], made[1], encoded[:, 2])
        made += [ad, eigenvalues.radial(made[1], ad)]
    return np.where(brain(encoded)[:, None], np.stack(made, axis=1), np.float32(0))


def brain(encoded: Array) -> NDArray[np.bool_]:
    """Masks (..., X, Y, Z) of encoded volumes (..., C, X, Y, Z)."""
    inside: NDArray[np.bool_] = encoded[..., -1, :, :, :] > 0
    return inside


def reach(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Voxels (X, Y, Z) where any subject's brain is, or the level set of one still varies."""
    from scipy.ndimage import distance_transform_edt

    anywhere = reduce(np.logical_or, masks)
    near: NDArray[np.bool_] = distance_transform_edt(~anywhere) < 1.5
    return near
