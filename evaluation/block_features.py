"""Features of FA and MD volumes: statistics of large blocks of voxels.

All comparisons of whole volumes (kernel distance, nearest training subject, age regression) use
these features. They need no trained network, and a block is large enough that a feature means the
same place in every brain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec
from contracts.space import Space

Float64Array = NDArray[np.float64]

_BLOCK_MM = 32.0
# Values beyond this many standard deviations are cut off: a volume in wrong units is then far
# from all others, but does not decide every mean alone.
_LARGEST = 20.0


def block_features(
    volumes: NDArray[np.float32], space: Space, maps: tuple[MapSpec, ...]
) -> Float64Array:
    """Returns the features of each volume, (n, F), in network range.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z) in physical units.
    """
    scale = np.array([m.scale for m in maps])[:, None, None, None]
    return np.stack([features_of_volume(v.astype(np.float64) / scale, space) for v in volumes])


def features_of_volume(volume: Float64Array, space: Space) -> Float64Array:
    """Returns the features of one volume (maps, X, Y, Z) in network range; (F,).

    The features are the mean, the standard deviation and the mean gradient magnitude of each map
    in blocks of 32 mm. A block is averaged with its mirror image, so that a volume and its mirror
    image have equal features: differences between left and right are judged by the question of
    anatomy.
    """
    voxels = voxels_per_cell(space, _BLOCK_MM)
    gradient = np.sqrt(sum(g**2 for g in np.gradient(volume, axis=(1, 2, 3))))
    mean, mean_square = cell_means(volume, voxels), cell_means(volume**2, voxels)
    deviation = np.sqrt(np.maximum(mean_square - mean**2, 0))
    blocks = np.stack([mean, deviation, cell_means(gradient, voxels)])
    symmetric = (blocks + blocks[:, :, ::-1]) / 2
    half = (symmetric.shape[2] + 1) // 2
    features: Float64Array = symmetric[:, :, :half].ravel()
    return features


def standardised(features: Float64Array, reference: Float64Array) -> Float64Array:
    """Returns features less their mean in a reference set, in its standard deviations.

    Features are left out that are zero in half of the reference volumes or more: blocks at the
    edge of the grid, which contain a few voxels of one or two brains, would have the largest
    values. Values are cut off at 20 standard deviations.

    Parameters
    ----------
    features : (n, F).
    reference : (m, F), the features of real subjects.

    Returns
    -------
    (n, G) with G <= F; G depends on the reference only.
    """
    deviation = reference.std(axis=0)
    kept = (deviation > 0) & ((reference != 0).mean(axis=0) > 0.5)
    points = (features[:, kept] - reference[:, kept].mean(axis=0)) / deviation[kept]
    cut: Float64Array = np.clip(points, -_LARGEST, _LARGEST)
    return cut


def voxels_per_cell(space: Space, mm: float) -> tuple[int, int, int]:
    """Returns the number of voxels along each axis of a cell with edges of about `mm`."""
    x, y, z = (max(1, round(mm / zoom)) for zoom in space.zooms)
    return x, y, z


def cell_means(maps: Float64Array, voxels: tuple[int, int, int]) -> Float64Array:
    """Returns the means of cells of voxels, (maps, x, y, z).

    Where the cells do not divide the grid, it is extended by zeros at the end of the axis.

    Parameters
    ----------
    maps : (maps, X, Y, Z).
    voxels : the edges of a cell.
    """
    pads = [(0, 0)] + [(0, -n % edge) for n, edge in zip(maps.shape[1:], voxels, strict=True)]
    padded = np.pad(maps, pads)
    x, y, z = (n // edge for n, edge in zip(padded.shape[1:], voxels, strict=True))
    split = padded.reshape(len(maps), x, voxels[0], y, voxels[1], z, voxels[2])
    means: Float64Array = split.mean(axis=(2, 4, 6))
    return means
