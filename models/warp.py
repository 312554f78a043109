"""Volumes moved by small smooth displacements, and the displacements found again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

# Shapes: C channels, X Y Z voxels. A displacement (3, X, Y, Z) is in voxels of that grid. An image
# may be on the grid or on a finer one that has its corners in common with it.

# Of the pooled equations of a step, in squared standard deviations per squared voxel: where an
# image is flat it does not say where it has moved.
_DAMPING = 0.5
# The same, of all equations: what one direction says of the others is lost in fp32 below it.
_LEAST_DAMPING = 1e-6
# Of a Gaussian's middle, counted as nothing.
_NEGLIGIBLE = 1e-12
# Voxels that a point moves in one step at most.
_LONGEST = 1.0
# Pairs of axes of a symmetric 3 x 3 matrix.
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


class Places:
    """The places x + shift(x) in a grid, and the eight voxels around each.

    Values there, linear between voxels, are the product of a sparse matrix with an image.

    Parameters
    ----------
    shift : (3, X, Y, Z), in voxels.
    finer : steps of the image's grid per voxel; its corners are those of the shift's grid.
    """

    def __init__(self, shift: Tensor, finer: int = 1) -> None:
        from scipy.sparse import csr_array

        self._shape = tuple(shift.shape[1:])
        self._size = tuple((n - 1) * finer + 1 for n in self._shape)
        last = torch.tensor(self._size).view(3, 1) - 1
        at = ((_places(self._shape) + shift) * finer).flatten(1)
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

    def pull(self, image: Tensor) -> Tensor:
        """Values (C, X, Y, Z) of an image (C, ...) at the places."""
        # Channel by channel: faster than all of them, which would have to be the last axis.
        flat = image.flatten(1).numpy()
        return torch.from_numpy(np.stack([self._matrix @ one for one in flat])).view(
            -1, *self._shape
        )

    def push(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (C, ...) and weights (1, ...) in the grid of values (C, X, Y, Z) that each go to
        the voxels around their place: the adjoint of `pull`."""
        both = torch.cat([values, torch.ones_like(values[:1])]).flatten(1).numpy()
        back = self._matrix.T
        grown = torch.from_numpy(np.stack([back @ one for one in both])).view(-1, *self._size)
        return grown[:-1], grown[-1:]


def pull(image: Tensor, shift: Tensor) -> Tensor:
    """Values (C, X, Y, Z) of an image at x + shift(x), linear between its voxels."""
    return Places(shift, (image.shape[1] - 1) // (shift.shape[1] - 1)).pull(image)


def push(values: Tensor, shift: Tensor, finer: int = 1) -> tuple[Tensor, Tensor]:
    """See `Places.push`."""
    return Places(shift, finer).push(values)


def nearest(values: Tensor, shift: Tensor, steps: int = 6) -> Tensor:
    """Values (C, X, Y, Z) whose places x + shift(x) are nearest to each voxel, unmixed: `pull`
    backwards, by fixed-point iteration."""
    at = _places(shift.shape[1:])
    found = at
    for _ in range(steps):
        found = at - pull(shift, found - at)
    x, y, z = (
        found[axis].round().long().clamp(0, size - 1) for axis, size in enumerate(shift.shape[1:])
    )
    return values[:, x, y, z]


def refined(image: Tensor, finer: int) -> Tensor:
    """An image (C, X, Y, Z) on the grid of `finer` times its steps, linear between them."""
    return _along(image, [_between(n, finer) for n in image.shape[1:]])


def smooth(image: Tensor, width: float) -> Tensor:
    """An image (C, X, Y, Z) convolved with a Gaussian of `width` voxels."""
    return _along(image, [_kernel(n, width) for n in image.shape[1:]])


def register(
    volume: Tensor,
    template: Tensor,
    precision: Tensor,
    shift: Tensor,
    steps: int,
    width: float,
) -> Tensor:
    """The displacement (3, X, Y, Z) by which a template looks like a volume.

    Gauss-Newton steps for the squared difference of all channels, their equations pooled over a
    neighbourhood (Lucas & Kanade 1981), and the displacement smoothed after each (the elastic
    kind of Thirion's demons, 1998).

    Parameters
    ----------
    volume : (C, X, Y, Z).
    template : (C, ...), on the volume's grid or a finer one.
    precision : as the template, one over the standard deviation that differences have, 0 where
        they do not count.
    shift : where to start.
    width : of the smoothing of displacements, in voxels.
    """
    both, count = torch.cat([template, precision]), len(volume)
    for _ in range(steps):
        found = pull(both, shift)
        seen, weight = found[:count], found[count:]
        slope = torch.stack(torch.gradient(seen, dim=(1, 2, 3))) * weight
        error = (volume - seen) * weight
        pooled = smooth(
            torch.stack(
                [(slope[i] * slope[j]).sum(dim=0) for i, j in _PAIRS]
                + [(part * error).sum(dim=0) for part in slope]
            ),
            0.7 * width,
        )
        step = _solved(pooled[:6], pooled[6:])
        # Not `norm`, which is slow along the first axis.
        length = step.square().sum(dim=0).sqrt().clamp(min=_LONGEST)
        shift = smooth(shift + step * (_LONGEST / length), width)
    return shift


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Solutions (3, ...) of symmetric equations (6, ...), damped, by their adjugate."""
    size = matrix[0] + matrix[3] + matrix[5] + _DAMPING
    # Of size 1: products of six entries of any other would leave the range of fp32.
    a, b, c, d, e, f = matrix / size
    damping = _DAMPING / size + _LEAST_DAMPING
    a, d, f = a + damping, d + damping, f + damping
    xx, xy, xz = d * f - e * e, c * e - b * f, b * e - c * d
    yy, yz, zz = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * xx + b * xy + c * xz
    x, y, z = right / size
    rows = (xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z)
    found: Tensor = torch.stack(rows) / determinant
    return found


def _places(shape: Sequence[int]) -> Tensor:
    axes = torch.meshgrid(*(torch.arange(n).float() for n in shape), indexing="ij")
    return torch.stack(axes)


def _along(image: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """An image (C, X, Y, Z) multiplied along each axis."""
    x, y, z = matrices
    image = y @ (image @ z.T)
    out: Tensor = (x @ image.flatten(-2)).view(-1, len(x), len(y), len(z))
    return out


@cache
def _kernel(size: int, width: float) -> Tensor:
    place = torch.arange(size).float()
    rows = torch.exp(-((place[:, None] - place) ** 2) / (2 * width**2))
    # Numbers so small that processors take long for them.
    rows = torch.where(rows < _NEGLIGIBLE, 0, rows)
    kernel: Tensor = rows / rows.sum(dim=1, keepdim=True)
    return kernel


@cache
def _between(size: int, finer: int) -> Tensor:
    place = torch.arange((size - 1) * finer + 1) / finer
    return (1 - (place[:, None] - torch.arange(size)).abs()).clamp(min=0)
