"""The channels that group registration and generators see: maps continued beyond the brain, and the
signed distance to the brain's boundary."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from cohort.masking import largest_component
from contracts import eigenvalues
from contracts.errors import UserError
from contracts.maps import AD, RD, MapSpec

Array = NDArray[np.float32]

# The signed distance is divided by so many voxels: about the width over which the boundary varies
# from subject to subject. Outside it ends at -1. Inside it goes on, since a channel that is the
# same in everybody has no distribution.
_DISTANCE_UNIT = 3.0


def count(maps: tuple[MapSpec, ...]) -> int:
    """Returns C, the number of channels of `encode`: all maps but RD, and the signed distance."""
    return sum(m != RD for m in maps) + 1


def encode(volumes: Array, masks: NDArray[np.bool_], maps: tuple[MapSpec, ...]) -> Array:
    """Turns maps and brain masks into channels that vary smoothly in space.

    A map drops from tissue to zero at a boundary that lies elsewhere in every subject. Averages
    and Gaussians smear that step, and a network would spend its first hours on it. Therefore each
    map is continued beyond the boundary by its nearest value inside, and the boundary is a channel
    of its own.

    AD is replaced by the shape that it gives the tensor (`contracts.eigenvalues`): a smooth,
    bounded channel, any value of which makes possible eigenvalues with any FA and MD. Generated
    beside FA and MD, AD itself would miss the narrow interval that they allow in two voxels of
    three. RD is left out, since it follows from MD and AD.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), physical units.
    masks : (n, X, Y, Z), brain.

    Returns
    -------
    (n, C, X, Y, Z): the maps but for RD in network range, then `signed_distance`.

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
    out = np.empty((len(volumes), count(maps), *volumes.shape[2:]), dtype=np.float32)
    for i, (volume, mask) in enumerate(zip(volumes, masks, strict=True)):
        outside, nearest = distance_transform_edt(~mask, return_indices=True)
        for k, spec in enumerate(m for m in maps if m != RD):
            values = eigenvalues.shape(*volume[:3]) if spec == AD else spec.to_network(volume[k])
            out[i, k] = values[tuple(nearest)]
        out[i, -1] = _signed(mask, outside)
    return out


def signed_distance(mask: NDArray[np.bool_]) -> Array:
    """Returns the last channel of `encode` for one brain mask, (X, Y, Z).

    It is the distance to the boundary in units of 3 voxels, positive inside, and at least -1.
    """
    from scipy.ndimage import distance_transform_edt

    return _signed(mask, distance_transform_edt(~mask))


def smoothed_brain(mask: NDArray[np.bool_], sigma: float) -> NDArray[np.bool_]:
    """Returns a brain mask (X, Y, Z) with a smoother outline and in one piece.

    The voxels are those with the largest smoothed signed distance, as many as before, of which the
    largest piece is kept. Smoothing alone would take off what is convex.

    Parameters
    ----------
    sigma : standard deviation in voxels of the Gaussian that smooths the signed distance to the
        boundary; 0: the outline stays.
    """
    from scipy.ndimage import gaussian_filter

    if not mask.any():
        return mask
    if not sigma:
        return largest_component(mask)
    smooth = gaussian_filter(signed_distance(mask), sigma)
    least = np.partition(smooth, -mask.sum(), axis=None)[-mask.sum()]
    return largest_component(smooth >= least)


def at_depth(voxels: float) -> np.float32:
    """Returns the signed distance of a place so many voxels inside the boundary."""
    return np.float32(voxels / _DISTANCE_UNIT)


def _signed(mask: NDArray[np.bool_], outside: NDArray[np.float64]) -> Array:
    from scipy.ndimage import distance_transform_edt

    # The boundary runs half-way between the last voxel inside and the first outside.
    signed = np.where(mask, distance_transform_edt(mask) - 0.5, 0.5 - outside)
    distance: Array = np.maximum(signed / _DISTANCE_UNIT, -1).astype(np.float32)
    return distance


def decode(encoded: Array, maps: tuple[MapSpec, ...]) -> Array:
    """Returns maps in physical units, clipped to the possible range, zero outside the brain.

    This is the inverse of `encode` for volumes that are zero outside their mask.

    Parameters
    ----------
    encoded : (n, C, X, Y, Z).

    Returns
    -------
    (n, maps, X, Y, Z).
    """
    made = [m.clip(m.from_network(encoded[:, i])) for i, m in enumerate(maps[:2])]
    if AD in maps:
        ad = eigenvalues.axial(made[0], made[1], encoded[:, 2])
        made += [ad, eigenvalues.radial(made[1], ad)]
    return np.where(brain(encoded)[:, None], np.stack(made, axis=1), np.float32(0))


def brain(encoded: Array) -> NDArray[np.bool_]:
    """Returns the brain masks (..., X, Y, Z) of encoded volumes (..., C, X, Y, Z)."""
    inside: NDArray[np.bool_] = encoded[..., -1, :, :, :] > 0
    return inside


def possible_brain(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """Returns the voxels (X, Y, Z) that a brain may reach: any subject's, and one voxel beyond."""
    from scipy.ndimage import distance_transform_edt

    anywhere = reduce(np.logical_or, masks)
    near: NDArray[np.bool_] = distance_transform_edt(~anywhere) < 1.5
    return near
