"""Regression of the maps on the distance to the brain's boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.channels import at_depth
from cohort.regression import Array, design
from contracts.condition import Condition

# Depth of the outermost layer of voxels, which holds fluid in part, and of one free of it.
_EDGE, _CLEAR = at_depth(0.5), at_depth(2.5)
# Ridge penalty as a share of the mean variance of the regressors, and its least value: where the
# boundary hardly ever runs, there is no slope.
_RIDGE, _LEAST_RIDGE = 0.02, 1e-5


@dataclass(frozen=True, slots=True)
class BoundaryRegression:
    """What the distance to the boundary explains of each map, linear in two pieces, per voxel.

    The outermost voxels of a brain hold fluid, wherever the boundary runs; one step further in
    there is tissue. So a voxel near the boundary has another MD as soon as the boundary moves by
    one voxel. A Gaussian field that varies in one way everywhere does not know this: its brains
    have too little fluid at the boundary and too much below it.

    m(x) = m'(x) + sum_k slopes_k(x) (h_k(x) - centre_k(x)), with h the signed distance of
    `cohort.channels` cut to the outermost layer, and cut to the two layers below it. What is left,
    m', does not depend on the boundary.

    Parameters
    ----------
    slopes : (2, C - 1, ...), for C channels of which the last is the signed distance.
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
    ) -> BoundaryRegression:
        """Fits by least squares in what age, sex and site leave of both sides.

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
            both = np.concatenate([_pieces(flat[-1]), flat[:-1]])
            held += row[:, None, None] * both
            squares += both[:2, None] * both
        # Normal equations of the residuals: the sums of products less what the design explains.
        # (The pseudo-inverse, since a cohort of women alone leaves the design dependent.)
        explained = np.tensordot(np.linalg.pinv(rows.T @ rows, hermitian=True), held, axes=1)
        residual = (squares - np.einsum("phv,pcv->hcv", held[:, :2], explained)) / n
        gram, cross = np.moveaxis(residual[:, :2], 2, 0), np.moveaxis(residual[:, 2:], 2, 0)
        ridge = max(_RIDGE * np.trace(gram.mean(axis=0)) / 2, _LEAST_RIDGE)
        found = np.linalg.solve(gram + ridge * np.eye(2), cross)
        slopes = np.zeros((2, channels - 1, mask.size), dtype=np.float32)
        slopes[:, :, inside] = np.moveaxis(found, 0, 2)
        centre = np.zeros((2, mask.size), dtype=np.float32)
        centre[:, inside] = np.einsum("p,phv->hv", rows.mean(axis=0), explained[:, :2])
        return cls(slopes.reshape(2, -1, *mask.shape), centre.reshape(2, *mask.shape))

    def removed_from(self, volumes: Array) -> Array:
        """Returns encoded volumes (..., C, X, Y, Z) with m' in place of the maps."""
        return self._shifted(volumes, -1)

    def added_to(self, volumes: Array) -> Array:
        """Inverse of `removed_from`: encoded volumes of m' and a signed distance."""
        return self._shifted(volumes, 1)

    def _shifted(self, volumes: Array, sign: int) -> Array:
        axis = -self.centre.ndim  # that of channels
        distance = np.take(volumes, -1, axis=axis)
        out = np.array(volumes, dtype=np.float32)
        maps = np.moveaxis(out, axis, 0)[:-1]
        for piece, slopes, centre in zip(_pieces(distance), self.slopes, self.centre, strict=True):
            off = np.float32(sign) * (piece - centre)
            for one, slope in zip(maps, slopes, strict=True):
                one += slope * off
        return out


def _pieces(distance: Array) -> Array:
    """Returns the regressors h, (2, ...)."""
    return np.stack([np.minimum(distance, _EDGE), np.clip(distance, _EDGE, _CLEAR)])
