"""Stationary Gaussian fields, drawn from white noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.regression import Array

# Lags at which less of the mask overlaps itself than this share are not estimated.
_LEAST_OVERLAP = 0.02
# Width of the Gaussian window on the lags, as a share of the grid: long lags are estimated from few
# pairs of voxels, and their noise would be drawn as power at all frequencies.
_WINDOW = 0.35
_AXES = (-3, -2, -1)


@dataclass(frozen=True, slots=True)
class StationaryField:
    """A Gaussian field whose covariance depends on the lag alone, of independent channels.

    Fields are drawn on twice the grid, where the covariance is circulant, and cut out (circulant
    embedding, Dietrich & Newsam 1997). In the cosine basis of `models.prior.spectrum` a field
    whose correlations are as long as the grid would have too little variance in its middle.

    Parameters
    ----------
    power : (C, X + 1, Y + 1, Z + 1), power of the frequencies 0 ... of twice the grid; it is the
        same for positive and negative frequencies along each axis.
    """

    power: Array

    @classmethod
    def fit(cls, fields: Sequence[Array] | Array, mask: NDArray[np.bool_]) -> StationaryField:
        """Estimates the power from n fields (C, X, Y, Z), which are zero outside a mask."""
        lags, _ = autocorrelation(fields, mask, np.ones((len(fields[0]), *mask.shape)))
        for axis, size in enumerate(mask.shape):
            away = _distance(size) / (_WINDOW * size)
            lags *= np.moveaxis(np.exp(-(away**2) / 2)[:, None, None], 0, axis)
        from scipy.fft import fftn

        power = fftn(lags, axes=_AXES).real
        for axis, size in enumerate(mask.shape, start=1):
            positive = np.take(power, range(size + 1), axis=axis)
            negative = np.take(power, -np.arange(size + 1), axis=axis)
            power = (positive + negative) / 2
        field = cls(np.maximum(power, 0).astype(np.float32))
        # What was cut off below zero must not raise the variance.
        factor = lags[:, 0, 0, 0] / np.maximum(field._unfolded().mean(axis=_AXES), 1e-12)
        return cls((field.power * factor[:, None, None, None]).astype(np.float32))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape (C, 2 X, 2 Y, 2 Z) of the white noise that a field is drawn from."""
        count, *sizes = self.power.shape
        return (count, *(2 * (size - 1) for size in sizes))

    def draw(self, noise: Array) -> Array:
        """Returns fields (n, C, X, Y, Z) of white noise (n, C, 2 X, 2 Y, 2 Z)."""
        from scipy.fft import irfftn, rfftn

        gain = np.sqrt(self._unfolded())[..., : self.power.shape[-1]]
        waves = rfftn(noise, axes=_AXES) * gain
        fields = irfftn(waves, noise.shape[-3:], axes=_AXES)
        x, y, z = (size - 1 for size in self.power.shape[1:])
        return np.ascontiguousarray(fields[..., :x, :y, :z], dtype=np.float32)

    def _unfolded(self) -> Array:
        """Returns the power of all frequencies, (C, 2 X, 2 Y, 2 Z)."""
        power = self.power
        for axis, size in enumerate(self.power.shape[1:], start=1):
            power = np.take(power, _distance(size - 1), axis=axis)
        return power


def autocorrelation(
    fields: Sequence[Array] | Array, mask: NDArray[np.bool_], weight: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the weighted autocorrelation of fields that are zero outside a mask.

    It is the mean product of two places over all places where both ends of a lag lie in the mask,
    so that the extent of the mask does not matter.

    Parameters
    ----------
    fields : n fields (C, X, Y, Z).
    mask : (X, Y, Z).
    weight : (C, X, Y, Z), how much a place counts.

    Returns
    -------
    The products at each lag, (C, 2 X, 2 Y, 2 Z), negative lags last, and the variance, (C,).
    """
    from scipy.fft import irfftn, rfftn

    # On twice the grid lags do not wrap around.
    grid = [2 * size for size in mask.shape]
    weighed = (weight * mask).astype(np.float32)
    products = np.zeros((len(weight), *grid[:2], grid[2] // 2 + 1))
    square = np.zeros(len(weight))
    for field in fields:
        one = field * weighed
        products += np.abs(rfftn(one, grid, axes=_AXES)) ** 2
        square += (one**2).sum(axis=_AXES)
    overlap = irfftn(np.abs(rfftn(weighed, grid, axes=_AXES)) ** 2, grid, axes=_AXES)
    whole = overlap[:, :1, :1, :1]
    lags = irfftn(products / len(fields), grid, axes=_AXES)
    lags /= np.maximum(overlap, _LEAST_OVERLAP * whole)
    return lags, square / len(fields) / whole.ravel()


def _distance(size: int) -> NDArray[np.int64]:
    """Returns how far each of 2 * size places is from the first on a circle."""
    return np.minimum(np.arange(2 * size), np.arange(2 * size, 0, -1))
