"""Smooth random fields and invertible deformations between template and subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.space import Space, mni_space

Array = NDArray[np.float32]

# Deformations and random fields are smooth, so that a coarse grid holds them at any resolution;
# one subject is then the same subject at 4 and at 2 mm.
GRID_MM = 4.0
_SQUARINGS = 5


def grid() -> Space:
    """The grid of deformations and random fields."""
    return mni_space(GRID_MM)


def to_index(points_mm: NDArray[np.float64], space: Space) -> Array:
    """Voxel coordinates (3, n) in `space` of points (n, 3) in mm."""
    inverse = np.linalg.inv(space.matrix)
    index: Array = (points_mm @ inverse[:3, :3].T + inverse[:3, 3]).T.astype(np.float32)
    return index


def sample(values: Array, index: Array, order: int = 1) -> Array:
    """Values (X, Y, Z) or (X, Y, Z, k) at voxel coordinates (3, n): (n,) or (n, k)."""
    from scipy import ndimage

    if values.ndim == 4:
        columns = [sample(values[..., k], index, order) for k in range(values.shape[3])]
        return np.stack(columns, axis=1)
    found: Array = ndimage.map_coordinates(values, index, order=order, mode="nearest")
    return found


def sample_labels(labels: NDArray[np.int32], index: Array) -> NDArray[np.int32]:
    """The nearest voxel's label at voxel coordinates (3, n): (n,)."""
    from scipy import ndimage

    found: NDArray[np.int32] = ndimage.map_coordinates(labels, index, order=0, mode="nearest")
    return found


def random_field(stream: np.random.Generator, fwhm_mm: float) -> Array:
    """Gaussian random field of mean 0 and standard deviation 1 on `grid()`."""
    from scipy import ndimage

    noise = stream.standard_normal(grid().shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, fwhm_mm / 2.355 / GRID_MM, mode="nearest")
    field: Array = (smooth / smooth.std()).astype(np.float32)
    return field


@dataclass(frozen=True, slots=True)
class Deformation:
    """Where in the template each point of a subject comes from.

    Parameters
    ----------
    shift : (X, Y, Z, 3) in mm on `grid()`: template point minus subject point.
    """

    shift: Array

    def pull(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Template points (n, 3) of subject points (n, 3), in mm."""
        return points_mm + sample(self.shift, to_index(points_mm, grid()))

    def to_subject(self, directions: Array, points_mm: NDArray[np.float64]) -> Array:
        """Template directions (n, 3) turned into the subject at `points_mm` (n, 3).

        A fibre's tangent is carried by the inverse Jacobian of the
        pull-back (Alexander et al., IEEE TMI 2001, preserved principal direction).
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
    """Flow of a stationary velocity field (X, Y, Z, 3) in mm, by scaling and squaring.

    Invertible by construction (Arsigny et al., MICCAI 2006).
    """
    shape = grid().shape
    index = np.indices(shape, dtype=np.float32).reshape(3, -1)
    shift = velocity.astype(np.float32) / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        moved = index + np.moveaxis(shift, -1, 0).reshape(3, -1) / np.float32(GRID_MM)
        shift = shift + sample(shift, moved).reshape(*shape, 3)
    return Deformation(shift)
