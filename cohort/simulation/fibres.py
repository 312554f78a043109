"""Fibres of the template's white matter: their direction, coherence and region labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cohort.simulation.anatomy import Anatomy
from cohort.simulation.tracts import REGIONS, TRACTS, Region, Tract

Array = NDArray[np.float32]
G = TypeVar("G", bound=np.generic)

# Distance between the points that represent a strand.
_STEP_MM = 1.5
# Number of nearest points whose tangents are averaged.
_NEIGHBOURS = 10
_GYRAL_WEIGHT, _GYRAL_SCALE_MM = 0.12, 6.0
# Row and column of the six elements of a symmetric 3x3 matrix, in the order used below.
_ELEMENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, slots=True)
class Fibres:
    """Fibres of the template's white matter.

    Parameters
    ----------
    direction : (X, Y, Z, 3) unit vectors of the main fibre direction, RAS+.
    coherence : (X, Y, Z) from 0, where fibres cross or fan out, to 1, where all are parallel.
    core : (X, Y, Z) closeness to the centre line of a tract, 0 to 1.
    thin_core : (X, Y, Z) the same for thin tracts alone, which the tissue maps miss.
    labels : (X, Y, Z) number of the region in `REGIONS`, from 1; 0 elsewhere.
    """

    direction: Array
    coherence: Array
    core: Array
    thin_core: Array
    labels: NDArray[np.int32]


def strand_points(tract: Tract) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points along every strand of a tract's right half, and the tangents there.

    Returns
    -------
    (n, 3) points in mm, 1.5 mm apart along a strand, and (n, 3) unit vectors.
    """
    from scipy.interpolate import CubicSpline

    keys = np.asarray(tract.keys, dtype=np.float64)
    if len(keys) > 1:
        along = np.linspace(0, len(keys) - 1, tract.strands)
        keys = CubicSpline(np.arange(len(keys)), keys, bc_type="natural")(along)
    points, tangents = [], []
    for strand in keys:
        knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(strand, axis=0), axis=1))])
        curve = CubicSpline(knots, strand)
        at = np.arange(0, knots[-1], _STEP_MM)
        points.append(curve(at))
        tangents.append(curve(at, 1))
    direction = np.concatenate(tangents)
    return np.concatenate(points), direction / np.linalg.norm(direction, axis=1, keepdims=True)


def build_fibres(anatomy: Anatomy) -> Fibres:
    """Build the fibres of all tracts on the template's grid.

    Fibre populations are added as dyadic tensors, the outer products of their tangents. The main
    eigenvector of the sum is the fibre direction, and the gap between the first and the second
    eigenvalue is the coherence, so that FA falls where tracts cross. In gyral white matter
    without a tract, fibres run across the border between grey and white matter.
    """
    from scipy import ndimage

    space = anatomy.space
    inside = anatomy.brain & (anatomy.fluid < 0.9)
    centres = space.centres()[inside]
    dyads = np.zeros((len(centres), 6))
    core = np.zeros(len(centres))
    thin_core = np.zeros(len(centres))
    best = np.zeros(len(centres))
    labels = np.zeros(len(centres), dtype=np.int32)
    for name, tract in TRACTS.items():
        distance, tangent = _nearest(tract, centres)
        near = np.exp(-0.5 * (distance / tract.radius) ** 2)
        dyads += (tract.weight * near**1.5)[:, None] * tangent
        core = np.maximum(core, near)
        if tract.thin:
            thin_core = np.maximum(thin_core, near)
        for index, region in enumerate(REGIONS.values(), start=1):
            if region.tract == name:
                score = tract.weight * near * _within(region, centres)
                score *= distance < region.reach * tract.radius
                labels = np.where(score > best, index, labels)
                best = np.maximum(best, score)

    zoom = space.zooms[0]
    slope = np.stack(
        np.gradient(ndimage.gaussian_filter(anatomy.white, _GYRAL_SCALE_MM / zoom)), axis=-1
    )[inside]
    slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
    dyads += _GYRAL_WEIGHT * np.stack([slope[:, i] * slope[:, j] for i, j in _ELEMENTS], axis=1)
    direction, coherence = _principal(_smooth(dyads, inside, 1.5 / zoom))
    return Fibres(
        direction=_fill(direction.astype(np.float32), inside),
        coherence=_fill(coherence.astype(np.float32), inside),
        core=_fill(core.astype(np.float32), inside),
        thin_core=_fill(thin_core.astype(np.float32), inside),
        labels=_fill(labels, inside),
    )


def _nearest(
    tract: Tract, centres: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distance of voxel centres to a tract, and the dyadic tensor of its fibres there.

    The tract is taken in both halves of the brain.

    Parameters
    ----------
    centres : (n, 3) in mm.

    Returns
    -------
    (n,) distances in mm, infinite where the tract is far, and the six elements (n, 6) of dyadic
    tensors with trace 1.
    """
    from scipy.spatial import cKDTree

    points, tangents = strand_points(tract)
    both = np.concatenate([points, points * [-1, 1, 1]])
    along = np.concatenate([tangents, tangents * [-1, 1, 1]])
    reach = 3.2 * tract.radius
    box = np.all((centres > both.min(axis=0) - reach) & (centres < both.max(axis=0) + reach), 1)
    tree = cKDTree(both)
    closest = np.full(len(centres), np.inf)
    closest[box] = tree.query(centres[box], distance_upper_bound=reach)[0]
    near = np.isfinite(closest)
    distance, index = tree.query(centres[near], k=_NEIGHBOURS)
    weight = np.exp(-0.5 * (distance / tract.radius) ** 2)
    weight /= weight.sum(axis=1, keepdims=True)
    dyad = np.zeros((len(centres), 6))
    for column, (i, j) in enumerate(_ELEMENTS):
        dyad[near, column] = (weight * (along[:, i] * along[:, j])[index]).sum(axis=1)
    return closest, dyad


def _within(region: Region, centres: NDArray[np.float64]) -> NDArray[np.bool_]:
    mirrored = np.concatenate([np.abs(centres[:, :1]), centres[:, 1:]], axis=1)
    inside: NDArray[np.bool_] = np.all((mirrored >= region.low) & (mirrored < region.high), axis=1)
    return inside


def _smooth(
    values: NDArray[np.float64], inside: NDArray[np.bool_], width: float
) -> NDArray[np.float64]:
    from scipy import ndimage

    channels = [ndimage.gaussian_filter(_fill(v, inside), width)[inside] for v in values.T]
    return np.stack(channels, axis=1)


def _principal(dyads: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the main eigenvector (n, 3) and the linearity (n,) of symmetric 3x3 matrices."""
    matrix = np.empty((len(dyads), 3, 3))
    for k, (i, j) in enumerate(_ELEMENTS):
        matrix[:, i, j] = matrix[:, j, i] = dyads[:, k]
    values, vectors = np.linalg.eigh(matrix)
    linear = (values[:, 2] - values[:, 1]) / np.maximum(values.sum(axis=1), 1e-9)
    return vectors[:, :, 2], np.clip(linear, 0, 1)


def _fill(values: NDArray[G], inside: NDArray[np.bool_]) -> NDArray[G]:
    out: NDArray[G] = np.zeros((*inside.shape, *values.shape[1:]), dtype=values.dtype)
    out[inside] = values
    return out
