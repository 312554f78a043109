"""Texture: coherence of neighbouring slices, and error of the power spectrum.

These measures decide nothing in an audit. They compare generators of slices with generators of
volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.regression import design, regress
from contracts.condition import Condition
from contracts.maps import MapSpec
from evaluation.comparison import Float64Array, Measure, Statistic, mean_difference, weights
from evaluation.measurement_grid import BACKGROUND_MD

Float32Array = NDArray[np.float32]

PLANES = ("sagittal", "coronal", "axial")

# Voxels count that belong to this share of real brains. The brain's edge, which is in another
# place in each, would dominate otherwise.
_COMMON = 0.95
_MIN_RELATIVE_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected values of each voxel for an age and sex, and the spread of real people.

    Parameters
    ----------
    coefficients : (4, maps, voxels), of the regression on `cohort.regression.design`, in network
        range.
    spread : (maps, voxels), the standard deviation of real people around it.
    mask : (X, Y, Z), the voxels.
    """

    maps: tuple[MapSpec, ...]
    coefficients: Float32Array
    spread: Float32Array
    mask: NDArray[np.bool_]

    @classmethod
    def fit(
        cls, volumes: Float32Array, conditions: Sequence[Condition], maps: tuple[MapSpec, ...]
    ) -> Expectation:
        """Fits the expectation to real (n, maps, X, Y, Z) volumes in physical units."""
        md = [m.name for m in maps].index("md")
        mask = (volumes[:, md] > BACKGROUND_MD).mean(axis=0) >= _COMMON
        inside = _to_network(volumes, maps)[:, :, mask]
        flat = inside.reshape(len(inside), -1)
        coefficients = regress(flat, conditions)
        residual = flat - design(conditions) @ coefficients
        freedom = max(len(flat) - len(coefficients), 1)
        spread = np.sqrt((residual**2).sum(axis=0) / freedom).reshape(inside.shape[1:])
        floor = np.maximum(_MIN_RELATIVE_SPREAD * np.median(spread, axis=1, keepdims=True), 1e-6)
        return cls(
            maps,
            coefficients.reshape(-1, *inside.shape[1:]),
            np.maximum(spread, floor).astype(np.float32),
            mask,
        )

    def coherence(self, volumes: Float32Array, conditions: Sequence[Condition]) -> Float64Array:
        """Returns the coherence of neighbouring slices across each axis, (n, maps, 3).

        It is the correlation of r with r one voxel further, where r is a volume's deviation from
        the expectation for its age and sex, in standard deviations of real people, less the mean
        of these deviations over the set (a fault of all volumes belongs to the question of
        anatomy). It is 1 if all slices deviate alike, and 0 if they are independent. r is not
        centred per slice, so that jumps of brightness between slices lower the coherence.

        Parameters
        ----------
        volumes : (n, maps, X, Y, Z) in physical units.
        conditions : (n), the age and sex of each.
        """
        rows = list(zip(volumes, design(conditions), strict=True))
        mean = sum((self._deviation(*row) for row in rows), np.zeros_like(self.spread)) / len(rows)
        coherence = np.empty((len(rows), len(self.maps), 3))
        r = np.zeros((len(self.maps), *self.mask.shape), dtype=np.float32)
        for i, row in enumerate(rows):
            r[:, self.mask] = self._deviation(*row) - mean
            for axis in range(3):
                here, there = (_without_one(r, axis + 1, k) for k in (0, 1))
                pairs = _without_one(self.mask, axis, 0) & _without_one(self.mask, axis, 1)
                a, b = here[:, pairs], there[:, pairs]
                scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
                coherence[i, :, axis] = (a * b).sum(axis=1) / np.maximum(scale, 1e-12)
        return coherence

    def _deviation(self, volume: Float32Array, x: Float64Array) -> Float32Array:
        expected = np.tensordot(x, self.coefficients, axes=1)
        inside = _to_network(volume[None], self.maps)[0][:, self.mask]
        deviation: Float32Array = ((inside - expected) / self.spread).astype(np.float32)
        return deviation


def measures(
    coherence: Float64Array, spectrum: Float64Array, maps: tuple[MapSpec, ...]
) -> tuple[Measure, Measure]:
    """Returns the measures of texture, which decide nothing.

    Parameters
    ----------
    coherence : (n, maps, 3), of the pooled volumes, see `Expectation.coherence`.
    spectrum : (n, maps, bands), log10 power, see `evaluation.measurements.Measurements`.
    """
    names = tuple(f"{spec.label} {plane}" for spec in maps for plane in PLANES)
    return (
        Measure("slice_coherence", "Likeness of neighbouring slices", "",
                mean_difference(coherence.reshape(len(coherence), -1)), columns=names),
        Measure("spectrum_error", "Power spectrum, mean error over bands", "dB",
                spectrum_error(spectrum), "above", unit_factor=10.0),
    )  # fmt: skip


def spectrum_error(spectrum: Float64Array) -> Statistic:
    """Returns the mean over maps and bands of the absolute difference of mean log10 power."""
    flat = spectrum.reshape(len(spectrum), -1)

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        gap: Float64Array = np.abs((weights(first) - weights(second)) @ flat).mean(axis=1)
        return gap[:, None]

    return statistic


def _to_network(volumes: Float32Array, maps: tuple[MapSpec, ...]) -> Float32Array:
    return np.stack([m.to_network(volumes[:, k]) for k, m in enumerate(maps)], axis=1)


def _without_one(values: NDArray[Any], axis: int, start: int) -> NDArray[Any]:
    """Returns all slices along an axis without the last (start 0) or the first (start 1)."""
    return np.take(values, range(start, values.shape[axis] - 1 + start), axis=axis)
