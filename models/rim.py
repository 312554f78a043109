"""How the maps follow the outline of the very brain that they are maps of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from models.gaussian import Array, design
from models.representation import at_depth

# Depth of the outermost layer of voxels, where fluid of the rim mixes in, and of one that is clear
# of it.
_EDGE, _CLEAR = at_depth(0.5), at_depth(2.5)
# Of a hinge's mean variance: a place that the outline hardly ever crosses has no slope.
_RIDGE, _LEAST_RIDGE = 0.02, 1e-5


@dataclass(frozen=True, slots=True)
class Rim:
    """What the outline explains of each map, a hinge function of depth in every voxel.

    The outermost voxels of a brain hold fluid, wherever that rim runs; a step further in there is
    tissue. So a voxel near the rim has another MD as soon as the rim moves by one voxel. Fields
    that vary together in one way everywhere, as those of `models.field`, do not know this: their
    brains have too little fluid at the rim and too much below it.

    m(x) = m'(x) + sum_k slopes_k(x) (h_k(x) - centre_k(x)), h the level set of
    `models.representation` up to the outermost layer and from there to the second below it. What
    is left, m', is free of the outline.

    Parameters
    ----------
    slopes : (2, C - 1, ...), of C channels of which the last is the level set.
    centre : (2, ...), mean of h.
    """

    slopes: Array
    centre: Array

    @classmethod
    def fit(
        cls,
        volumes: Sequence[Array] | Array,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
    ) -> Rim:
        """Least squares, in what the regression on `models.gaussian.design` leaves of both sides.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z), encoded; read once, one at a time.
        mask : (X, Y, Z), where slopes may be other than zero.
        """
        rows = design(conditions, sites)
        inside = np.flatnonzero(mask)
        n, channels = len(volumes), len(volumes[0])
        held = np.zeros((rows.shape[1], channels + 1, len(inside)))
        squares = np.zeros((2, channels + 1, len(inside)))
        for row, volume in zip(rows, volumes, strict=True):
            flat = volume.reshape(channels, -1)[:, inside].astype(np.float64)
            both = np.concatenate([_hinges(flat[-1]), flat[:-1]])
            held += row[:, None, None] * both
            squares += both[:2, None] * both
        # Normal equations of what the regression leaves over: less what it explains.
        # (A cohort of women alone leaves the regressors dependent.)
        explained = np.tensordot(np.linalg.pinv(rows.T @ rows, hermitian=True), held, axes=1)
        left = (squares - np.einsum("phv,pcv->hcv", held[:, :2], explained)) / n
        gram, towards = np.moveaxis(left[:, :2], 2, 0), np.moveaxis(left[:, 2:], 2, 0)
        ridge = max(_RIDGE * np.trace(gram.mean(axis=0)) / 2, _LEAST_RIDGE)
        found = np.linalg.solve(gram + ridge * np.eye(2), towards)
        slopes = np.zeros((2, channels - 1, mask.size), dtype=np.float32)
        slopes[:, :, inside] = np.moveaxis(found, 0, 2)
        centre = np.zeros((2, mask.size), dtype=np.float32)
        centre[:, inside] = np.einsum("p,phv->hv", rows.mean(axis=0), explained[:, :2])
        return cls(slopes.reshape(2, -1, *mask.shape), centre.reshape(2, *mask.shape))

    def freed(self, volumes: Array) -> Array:
        """m' of (..., C, X, Y, Z) encoded volumes, and their level set."""
        return self._moved(volumes, -1)

    def followed(self, volumes: Array) -> Array:
        """Encoded volumes (..., C, X, Y, Z) of m' and a level set: inverse of `freed`."""
        return self._moved(volumes, 1)

    def _moved(self, volumes: Array, sign: int) -> Array:
        axis = -self.centre.ndim  # that of channels
        level = np.take(volumes, -1, axis=axis)
        out = np.array(volumes, dtype=np.float32)
        maps = np.moveaxis(out, axis, 0)[:-1]
        for hinge, slopes, centre in zip(_hinges(level), self.slopes, self.centre, strict=True):
            off = np.float32(sign) * (hinge - centre)
            for one, slope in zip(maps, slopes, strict=True):
                one += slope * off
        return out


def _hinges(level: Array) -> Array:
    return np.stack([np.minimum(level, _EDGE), np.clip(level, _EDGE, _CLEAR)])
