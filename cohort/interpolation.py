"""Linear interpolation at displaced points and its adjoint, inverse displacements, smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

# Shapes: C channels, X Y Z voxels. A displacement (3, X, Y, Z) is in voxels of that grid. An image
# may be on the grid or on a finer one that has its corners in common with it.

# Standard deviations at which a Gaussian kernel is cut off.
_TRUNCATE = 6.0


class LinearInterpolation:
    """Linear interpolation of images at the points x + u(x) of a displacement u.

    Points outside the grid take the value of the nearest point on its edge. The same object serves
    images on grids of any fineness, since torch counts points from corner to corner.

    Parameters
    ----------
    displacement : u, (3, X, Y, Z), in voxels.
    """

    def __init__(self, displacement: Tensor) -> None:
        last = _last(displacement)
        points = 2 * (_grid(displacement.shape[1:]) + displacement) / last - 1
        # torch wants the coordinate of the last axis first.
        self._points = points.flip(0).permute(1, 2, 3, 0)[None]

    def apply(self, image: Tensor) -> Tensor:
        """Returns the values (C, X, Y, Z) of an image (C, ...) at the points."""
        return grid_sample(image[None], self._points, padding_mode="border", align_corners=True)[0]

    def adjoint(self, values: Tensor, finer: int = 1) -> tuple[Tensor, Tensor]:
        """Distributes values to the voxels around their points; the adjoint of `apply`.

        The adjoint of a linear map is its gradient.

        Parameters
        ----------
        values : (C, X, Y, Z).
        finer : steps of the image's grid per voxel.

        Returns
        -------
        The sums (C, ...) and the sums of weights (1, ...) on the image's grid.
        """
        both = torch.cat([values, torch.ones_like(values[:1])])
        size = [(n - 1) * finer + 1 for n in values.shape[1:]]
        with torch.enable_grad():
            image = torch.zeros(len(both), *size, requires_grad=True)
            (sums,) = torch.autograd.grad(self.apply(image), image, both)
        return sums[:-1], sums[-1:]


def displaced(image: Tensor, displacement: Tensor) -> Tensor:
    """Returns an image (C, ...) at x + u(x), (C, X, Y, Z); its grid may be finer than u's."""
    return LinearInterpolation(displacement).apply(image)


def inverse_displacement(displacement: Tensor, steps: int = 6) -> Tensor:
    """Returns v, (3, X, Y, Z), with x = y + v(y) for y = x + u(x), by fixed-point iteration."""
    at = _grid(displacement.shape[1:])
    found = torch.zeros_like(displacement)
    for _ in range(steps):
        found = -displaced(displacement, found)
    return found.clamp(min=-at, max=_last(at) - at)


def inversely_displaced(values: Tensor, displacement: Tensor) -> Tensor:
    """Moves values (C, X, Y, Z) from the points x to x + u(x), by nearest neighbour.

    Each voxel y gets the value of the x for which x + u(x) is nearest to y. No values are mixed.
    """
    found = _grid(displacement.shape[1:]) + inverse_displacement(displacement)
    x, y, z = found.round().long()
    return values[:, x, y, z]


def upsampled(image: Tensor, finer: int) -> Tensor:
    """Returns an image (C, X, Y, Z) on a grid of `finer` steps per voxel, linear between them."""
    size = [(n - 1) * finer + 1 for n in image.shape[1:]]
    return interpolate(image[None], size=size, mode="trilinear", align_corners=True)[0]


def smooth(image: Tensor, sigma: float) -> Tensor:
    """Returns an image (C, X, Y, Z) convolved with a Gaussian of standard deviation `sigma` voxels.

    At the edges of the grid the kernel is cut off and scaled to sum to one.
    """
    weight = _inside(tuple(image.shape[1:]), sigma)
    return torch.from_numpy(_filtered(image.numpy(), sigma) / weight)


def _filtered(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    filtered: NDArray[np.float32] = gaussian_filter(
        image, (0, sigma, sigma, sigma), mode="constant", truncate=_TRUNCATE
    )
    return filtered


@cache
def _inside(shape: tuple[int, ...], sigma: float) -> NDArray[np.float32]:
    """Returns the share of the kernel around each voxel that lies on the grid, (1, X, Y, Z)."""
    return _filtered(np.ones((1, *shape), dtype=np.float32), sigma)


def _grid(shape: Sequence[int]) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n).float() for n in shape), indexing="ij")
    return torch.stack(axes)


def _last(grid: Tensor) -> Tensor:
    """Returns the index of the last voxel along each axis, (3, 1, 1, 1)."""
    return torch.tensor(grid.shape[1:]).view(3, 1, 1, 1).to(grid) - 1
