"""Linear interpolation at displaced places, its adjoint, its inverse, and Gaussian smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

# Shapes: C channels, X Y Z voxels. A displacement (3, X, Y, Z) is in voxels of that grid. An image
# may be on the grid or on a finer one that has its corners in common with it.

# Weights of a Gaussian kernel below this are set to zero: processors take long for tiny numbers.
_NEGLIGIBLE = 1e-12


class LinearInterpolation:
    """Linear interpolation of images at the places x + u(x) of a displacement u.

    The values there are the product of a sparse matrix, eight weights per voxel, with the image.
    The matrix is built once and serves any number of images; its transpose is the adjoint.

    Parameters
    ----------
    displacement : u, (3, X, Y, Z), in voxels.
    finer : steps of the image's grid per voxel; its corners are those of the displacement's grid.
    """

    def __init__(self, displacement: Tensor, finer: int = 1) -> None:
        from scipy.sparse import csr_array

        self._shape = tuple(displacement.shape[1:])
        self._size = tuple((n - 1) * finer + 1 for n in self._shape)
        last = torch.tensor(self._size).view(3, 1) - 1
        at = ((_grid(self._shape) + displacement) * finer).flatten(1)
        at = torch.minimum(at.clamp(min=0), last)
        low = torch.minimum(at.floor(), last - 1)
        upper, first = at - low, low.int()
        lower = 1 - upper
        _, ny, nz = self._size
        origin = (first[0] * ny + first[1]) * nz + first[2]
        columns = torch.empty(len(origin), 8, dtype=torch.int32)
        weights = torch.empty(len(origin), 8)
        for k, (i, j, m) in enumerate(product((0, 1), repeat=3)):
            columns[:, k] = origin + ((i * ny + j) * nz + m)
            x, y, z = ((lower, upper)[part][axis] for axis, part in enumerate((i, j, m)))
            weights[:, k] = x * y * z
        starts = np.arange(0, columns.numel() + 1, 8, dtype=np.int32)
        entries = weights.numpy().ravel(), columns.numpy().ravel(), starts
        self._matrix = csr_array(entries, shape=(len(origin), int(np.prod(self._size))))

    def apply(self, image: Tensor) -> Tensor:
        """Returns the values (C, X, Y, Z) of an image (C, ...) at the places."""
        # One channel at a time is faster than all of them, which would have to be the last axis.
        flat = image.flatten(1).numpy()
        return torch.from_numpy(np.stack([self._matrix @ one for one in flat])).view(
            -1, *self._shape
        )

    def adjoint(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Distributes values to the voxels around their places.

        Parameters
        ----------
        values : (C, X, Y, Z).

        Returns
        -------
        The sums (C, ...) and the sums of weights (1, ...) on the image's grid.
        """
        both = torch.cat([values, torch.ones_like(values[:1])]).flatten(1).numpy()
        back = self._matrix.T
        sums = torch.from_numpy(np.stack([back @ one for one in both])).view(-1, *self._size)
        return sums[:-1], sums[-1:]


def displaced(image: Tensor, displacement: Tensor) -> Tensor:
    """Returns an image (C, ...) at x + u(x), (C, X, Y, Z); its grid may be finer than u's."""
    finer = (image.shape[1] - 1) // (displacement.shape[1] - 1)
    return LinearInterpolation(displacement, finer).apply(image)


def inverse_displacement(displacement: Tensor, steps: int = 6) -> Tensor:
    """Returns v, (3, X, Y, Z), with x = y + v(y) for y = x + u(x), by fixed-point iteration."""
    at = _grid(displacement.shape[1:])
    found = torch.zeros_like(displacement)
    for _ in range(steps):
        found = -displaced(displacement, found)
    return found.clamp(min=-at, max=_last(at) - at)


def inversely_displaced(values: Tensor, displacement: Tensor) -> Tensor:
    """Moves values (C, X, Y, Z) from the places x to x + u(x), by nearest neighbour.

    Each voxel y gets the value of the x for which x + u(x) is nearest to y. No values are mixed.
    """
    found = _grid(displacement.shape[1:]) + inverse_displacement(displacement)
    x, y, z = found.round().long()
    return values[:, x, y, z]


def upsampled(image: Tensor, finer: int) -> Tensor:
    """Returns an image (C, X, Y, Z) on a grid of `finer` steps per voxel, linear between them."""
    return _along(image, [_between(n, finer) for n in image.shape[1:]])


def smooth(image: Tensor, sigma: float) -> Tensor:
    """Returns an image (C, X, Y, Z) convolved with a Gaussian of standard deviation `sigma` voxels.

    At the edges of the grid the kernel is cut off and scaled to sum to one. (scipy's filter has no
    such mode.)
    """
    return _along(image, [_kernel(n, sigma) for n in image.shape[1:]])


def _grid(shape: Sequence[int]) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n).float() for n in shape), indexing="ij")
    return torch.stack(axes)


def _last(grid: Tensor) -> Tensor:
    return torch.tensor(grid.shape[1:]).view(3, 1, 1, 1).to(grid) - 1


def _along(image: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Multiplies an image (C, X, Y, Z) by a matrix along each axis."""
    x, y, z = matrices
    image = y @ (image @ z.T)
    out: Tensor = (x @ image.flatten(-2)).view(-1, len(x), len(y), len(z))
    return out


@cache
def _kernel(size: int, sigma: float) -> Tensor:
    place = torch.arange(size).float()
    rows = torch.exp(-((place[:, None] - place) ** 2) / (2 * sigma**2))
    rows = torch.where(rows < _NEGLIGIBLE, 0, rows)
    kernel: Tensor = rows / rows.sum(dim=1, keepdim=True)
    return kernel


@cache
def _between(size: int, finer: int) -> Tensor:
    place = torch.arange((size - 1) * finer + 1) / finer
    return (1 - (place[:, None] - torch.arange(size)).abs()).clamp(min=0)
