"""A template as displaced subjects show it, and made anew from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.curves import local_spread
from models.gaussian import Array
from models.threads import each
from models.warp import Places, pull, push, refined, register, smooth

# Steps of the template's grid per voxel: subjects lie at all parts of a voxel, so that together
# they show it finer than any of them.
FINER = 2
# Of corrections of the template: in its own voxels, and values that such a voxel, or one of the
# grid, needs.
_BLUR, _LEAST_WEIGHT, _LEAST_COARSE = 0.6, 1.0, 0.3


class Sight:
    """An image and what regressors add to it, seen by subjects whose displacements are given.

    Parameters
    ----------
    image, effects, precision : as in `models.frame.Frame`; no precision until `weigh`.
    rows : (n, 4 + S), regressors of the subjects, less their mean.
    mask : (X, Y, Z), outside of which differences do not count.
    """

    def __init__(
        self,
        image: Tensor,
        effects: Tensor,
        rows: Tensor,
        mask: NDArray[np.bool_],
        precision: Tensor | None = None,
    ) -> None:
        self.image, self.effects, self._rows = image, effects, rows
        self._mask = torch.from_numpy(mask)
        self.precision = torch.zeros(0) if precision is None else precision

    def moved(self, i: int, shift: Tensor) -> Tensor:
        """The i-th subject's template, displaced."""
        return pull(self._own(i), shift)

    def registered(self, i: int, volume: Array, shift: Array, steps: int, width: float) -> Array:
        """See `models.warp.register`."""
        found: Array = register(
            torch.from_numpy(np.array(volume)),
            self._own(i),
            refined(self.precision, FINER),
            torch.from_numpy(np.array(shift)),
            steps,
            width,
        ).numpy()
        return found

    def weigh(self, volumes: Sequence[Array] | Array, shifts: Array) -> None:
        """Precision anew from what is left."""

        def squares(i: int) -> NDArray[np.float64]:
            shift = torch.from_numpy(np.array(shifts[i]))
            left = torch.from_numpy(np.array(volumes[i])) - self.moved(i, shift)
            squared: NDArray[np.float64] = np.square(left.numpy(), dtype=np.float64)
            return squared

        variance = np.zeros(volumes[0].shape)
        for one in each(squares, len(volumes)):
            variance += one / len(volumes)
        mask = self._mask.numpy()
        self.precision = torch.from_numpy(
            np.where(mask, 1 / local_spread(variance, mask), 0)
        ).float()

    def improve(self, volumes: Sequence[Array] | Array, shifts: Array) -> None:
        """One step towards the template and effects of least squares."""
        grown, weight = torch.zeros_like(self.image), torch.zeros_like(self.image[:1])
        change = torch.zeros_like(self.effects)
        inverse = torch.linalg.pinv(torch.cat([torch.ones(len(self._rows), 1), self._rows], dim=1))

        def seen(i: int) -> tuple[Tensor, Tensor, Tensor]:
            shift = torch.from_numpy(np.array(shifts[i]))
            fine = Places(shift, FINER)
            left = torch.from_numpy(np.array(volumes[i])) - fine.pull(self._own(i))
            values, count = push(left, shift)
            return *fine.push(left), values / count.clamp(min=_LEAST_COARSE)

        for i, (values, count, coarse) in enumerate(each(seen, len(volumes))):
            grown += values
            weight += count
            change += inverse[1:, i].view(-1, 1, 1, 1, 1) * coarse
        blurred = smooth(weight, _BLUR).clamp(min=_LEAST_WEIGHT)
        self.image = self.image + smooth(grown, _BLUR) / blurred
        self.effects = self.effects + change * self._mask

    def _own(self, i: int) -> Tensor:
        added = torch.tensordot(self._rows[i], self.effects, dims=1)
        return self.image + refined(added, FINER)
