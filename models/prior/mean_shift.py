"""The mean residual of another group, as values on a coarse grid that are added to the base's mean.

Patients may differ from the base's subjects in some places only. A network learns such a difference
slowly: a convolution does not know where in the brain it is, and at most times the noisy image
shows the low frequencies, shifted or not.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from cohort.regression import Array
from contracts.space import Space

# Edge of the coarse grid's voxels. On a simulated disease of tracts, the mean of 36 patients on a
# grid of 8 mm left more of their difference to others than on one of 6 mm, which left as much as
# one of 4 mm does with three times the numbers.
_EDGE_MM = 6.0
# Penalty on the squared shift at each point of the grid, that of a thousandth of a voxel:
# points beside the brain, that hardly any voxel depends on, stay near zero.
_RIDGE = 1e-3


def fit(mean: Array, mask: NDArray[np.bool_], space: Space) -> Array:
    """Returns the shift on the coarse grid that is nearest to a mean, (C, x, y, z).

    Its numbers have half precision, as in adapter files; their noise is far larger.

    It is the least-squares fit over the mask, zero at points that no voxel of the mask depends on.
    Hardly anything pulls a region's mean towards zero (the ridge is a thousandth): with few
    subjects the shift then has their noise, which cancels out in a region, whereas what is shrunk
    is missing in every volume.

    Parameters
    ----------
    mean : (C, X, Y, Z), of the residuals of a group.
    mask : (X, Y, Z).
    """
    from scipy import sparse

    coarse = [
        math.ceil((n - 1) * zoom / _EDGE_MM) + 1
        for n, zoom in zip(space.shape, space.zooms, strict=True)
    ]
    axes = [sparse.csr_array(_weights(m, n)) for m, n in zip(coarse, space.shape, strict=True)]
    matrix = sparse.csr_array(reduce(sparse.kron, axes))[mask.ravel()]
    reached = np.asarray(matrix.sum(axis=0)) > 0
    matrix = matrix[:, reached]
    normal = (matrix.T @ matrix + _RIDGE * sparse.eye_array(matrix.shape[1])).tocsc()
    solved = sparse.linalg.splu(normal).solve(matrix.T @ mean[:, mask].T.astype(np.float64))
    shift = np.zeros((len(mean), len(reached)), dtype=np.float32)
    shift[:, reached] = solved.T.astype(np.float16)
    return shift.reshape(len(mean), *coarse)


def on_grid(coarse: Array, mask: NDArray[np.bool_]) -> Array:
    """Returns the shift (C, X, Y, Z) of coarse values (C, x, y, z), zero outside the mask.

    It is interpolated linearly along each axis; the corners of both grids coincide.
    """
    x, y, z = (_weights(m, n) for m, n in zip(coarse.shape[1:], mask.shape, strict=True))
    values = np.einsum("cxyz,Xx,Yy,Zz->cXYZ", coarse, x, y, z, optimize=True)
    shift: Array = (values * mask).astype(np.float32)
    return shift


def _weights(coarse: int, fine: int) -> NDArray[np.float64]:
    """Returns the matrix (fine, coarse) of linear interpolation along an axis."""
    position = np.linspace(0, coarse - 1, fine)
    weights: NDArray[np.float64] = np.maximum(
        1 - np.abs(position[:, None] - np.arange(coarse)[None]), 0
    )
    return weights
