"""Smooth random fields, and invertible deformations between template and subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.space import Space, mni_space

Array = NDArray[np.float32]

# Deformations and random fields are smooth, so a coarse grid can hold them for output at any
# resolution. A simulated person is then the same person at 4 mm and at 2 mm.
GRID_MM = 4.0
_SQUARINGS = 5


def grid() -> Space:
    """Return the grid of deformations and random fields."""
    return mni_space(GRID_MM)


def to_index(points_mm: NDArray[np.float64], space: Space) -> Array:
    """Return the voxel coordinates (3, n) in `space` of points (n, 3) in mm."""
    inverse = np.linalg.inv(space.matrix)
    index: Array = (points_mm @ inverse[:3, :3].T + inverse[:3, 3]).T.astype(np.float32)
    return index


def sample(values: Array, index: Array, order: int = 1) -> Array:
    """Interpolate values at voxel coordinates.

    Parameters
    ----------
    values : (X, Y, Z) or (X, Y, Z, k).
    index : (3, n) voxel coordinates; outside the grid the nearest value is taken.
    order : order of the spline: 0 is nearest neighbour, 1 is linear.

    Returns
    -------
    (n,) or (n, k) values.
    """
    from scipy import ndimage

    if values.ndim == 4:
        columns = [sample(values[..., k], index, order) for k in range(values.shape[3])]
        return np.stack(columns, axis=1)
    found: Array = ndimage.map_coordinates(values, index, order=order, mode="nearest")
    return found


def sample_labels(labels: NDArray[np.int32], index: Array) -> NDArray[np.int32]:
    """Return the label (n,) of the nearest voxel at voxel coordinates (3, n)."""
    from scipy import ndimage

    found: NDArray[np.int32] = ndimage.map_coordinates(labels, index, order=0, mode="nearest")
    return found


def random_field(stream: np.random.Generator, fwhm_mm: float) -> Array:
    """Return a Gaussian random field with mean about 0 and standard deviation 1 on `grid()`.

    Parameters
    ----------
    fwhm_mm : full width at half maximum of the kernel that smooths white noise.
    """
    from scipy import ndimage

    noise = stream.standard_normal(grid().shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, fwhm_mm / 2.355 / GRID_MM, mode="nearest")
    field: Array = (smooth / smooth.std()).astype(np.float32)
    return field


@dataclass(frozen=True, slots=True)
class Deformation:
    """The map from each point of a subject to the corresponding point of the template.

    Parameters
    ----------
    shift : (X, Y, Z, 3) displacements in mm on `grid()`: template point minus subject point.
    """

    shift: Array

    def to_template(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the template points (n, 3) of subject points (n, 3), in mm."""
        return points_mm + sample(self.shift, to_index(points_mm, grid()))

    def reorient(self, directions: Array, points_mm: NDArray[np.float64]) -> Array:
        """Turn fibre directions of the template into the subject.

        A fibre's tangent is multiplied by the inverse Jacobian of the map to the template, so
        that the principal direction is preserved (Alexander et al., IEEE TMI 2001).

        Parameters
        ----------
        directions : (n, 3) directions in the template.
        points_mm : (n, 3) points of the subject, in mm.

        Returns
        -------
        (n, 3) unit vectors in the subject.
        """
        flat = np.empty((*grid().shape, 9), dtype=np.float32)
        for i in range(3):
            for j in range(3):
                flat[..., 3 * i + j] = np.gradient(self.shift[..., i], GRID_MM, axis=j)
        jacobian = sample(flat, to_index(points_mm, grid())).reshape(-1, 3, 3) + np.eye(3)
        turned = np.linalg.solve(jacobian, directions[..., None])[..., 0]
        length = np.linalg.norm(turned, axis=1, keepdims=True)
        unit: Array = (turned / np.maximum(length, 1e-6)).astype(np.float32)
        return unit


def exponential(velocity: Array) -> Deformation:
    """Integrate a stationary velocity field by scaling and squaring.

    The result is invertible by construction (Arsigny et al., MICCAI 2006).

    Parameters
    ----------
    velocity : (X, Y, Z, 3) in mm on `grid()`.
    """
    shape = grid().shape
    index = np.indices(shape, dtype=np.float32).reshape(3, -1)
    shift = velocity.astype(np.float32) / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        moved = index + np.moveaxis(shift, -1, 0).reshape(3, -1) / np.float32(GRID_MM)
        shift = shift + sample(shift, moved).reshape(*shape, 3)
    return Deformation(shift)
