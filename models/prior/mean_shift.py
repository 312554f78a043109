"""A shift of the mean of the residuals, on a coarse grid: what another group has elsewhere."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cohort.regression import Array
from contracts.space import Space

# Edge of the coarse grid's voxels. On a simulated disease of tracts, the mean of 36 patients on a
# grid of 8 mm left more of their difference to others than on one of 6 mm, which left as much as
# one of 4 mm does with three times the numbers.
_EDGE_MM = 6.0


class MeanShift(nn.Module):
    """A trainable shift of the mean of r at each place; zero at first.

    Patients may differ from the base's subjects in some places only. The network learns such a
    difference slowly, since a convolution does not know where in the brain it is.

    Parameters
    ----------
    channels : C, of r.
    space : grid of r.
    mask : (X, Y, Z), where the shift matters.

    Attributes
    ----------
    values : (C, K), the shift at the points of the coarse grid that a voxel of the mask depends on.
    """

    nodes: Tensor

    def __init__(self, channels: int, space: Space, mask: NDArray[np.bool_]) -> None:
        super().__init__()
        self.shape = space.shape
        self.coarse_shape = tuple(
            math.ceil((n - 1) * zoom / _EDGE_MM) + 1
            for n, zoom in zip(space.shape, space.zooms, strict=True)
        )
        grid = torch.zeros(1, *self.coarse_shape, requires_grad=True)
        inside = (_on_grid(grid, self.shape) * torch.from_numpy(mask)).sum()
        (reach,) = torch.autograd.grad(inside, [grid])
        self.register_buffer("nodes", reach[0] != 0, persistent=False)
        self.values = nn.Parameter(torch.zeros(channels, int(self.nodes.sum())))

    def coarse(self) -> Tensor:
        """Returns the shift on the coarse grid, (C, x, y, z)."""
        grid = self.values.new_zeros(len(self.values), *self.coarse_shape)
        return grid.masked_scatter(self.nodes, self.values)

    def forward(self) -> Tensor:
        """Returns the shift (C, X, Y, Z)."""
        return _on_grid(self.coarse(), self.shape)


def on_grid(coarse: Array, mask: NDArray[np.bool_]) -> Array:
    """Returns the shift (C, X, Y, Z) of coarse values (C, ...), zero outside the mask."""
    values: Array = _on_grid(torch.from_numpy(np.array(coarse)), mask.shape).numpy()
    return values * mask


def _on_grid(coarse: Tensor, shape: tuple[int, ...]) -> Tensor:
    return interpolate(coarse[None], size=shape, mode="trilinear", align_corners=True)[0]
