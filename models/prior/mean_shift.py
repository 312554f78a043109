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

# Edge of the coarse grid's voxels. On a simulated disease of tracts, a grid of 12 mm left more of
# the difference; finer ones have several times the parameters.
_EDGE_MM = 8.0


class MeanShift(nn.Module):
    """A trainable shift of the mean of r at each place; zero at first.

    Patients may differ from the base's subjects in some places only. The network learns such a
    difference slowly, since a convolution does not know where in the brain it is.

    Parameters
    ----------
    channels : C, of r.
    space : grid of r.
    """

    def __init__(self, channels: int, space: Space) -> None:
        super().__init__()
        self.shape = space.shape
        coarse = [
            math.ceil((n - 1) * zoom / _EDGE_MM) + 1
            for n, zoom in zip(space.shape, space.zooms, strict=True)
        ]
        self.coarse = nn.Parameter(torch.zeros(channels, *coarse))

    def forward(self) -> Tensor:
        """Returns the shift (C, X, Y, Z)."""
        return _on_grid(self.coarse, self.shape)


def on_grid(coarse: Array, mask: NDArray[np.bool_]) -> Array:
    """Returns the shift (C, X, Y, Z) of coarse values (C, ...), zero outside the mask."""
    values: Array = _on_grid(torch.from_numpy(np.array(coarse)), mask.shape).numpy()
    return values * mask


def _on_grid(coarse: Tensor, shape: tuple[int, ...]) -> Tensor:
    return interpolate(coarse[None], size=shape, mode="trilinear", align_corners=True)[0]
