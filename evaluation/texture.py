"""Is a volume one piece? Likeness of neighbouring slices, and error of the power spectrum.

Reported, never a verdict: who compares generators of slices with generators of volumes asks this.
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
from evaluation.comparison import Measure, Statistic, Table, mean_difference, weights
from evaluation.profile import BACKGROUND_MD

Array = NDArray[np.float32]

PLANES = ("sagittal", "coronal", "axial")

# Where nearly every real brain is: the rim, which lies elsewhere in each, would dominate.
_ALWAYS = 0.95
_LEAST_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Expectation:
    """What real people of an age and sex look like, and how much they vary.

    Parameters
    ----------
    coefficients : (4, maps, voxels) regression on `cohort.regression.design`, network range.
    spread : (maps, voxels), standard deviation around it.
    mask : (X, Y, Z), the voxels.
    """

    maps: tuple[MapSpec, ...]
    coefficients: Array
    spread: Array
    mask: NDArray[np.bool_]

    @classmethod
    def fit(
        cls, volumes: Array, conditions: Sequence[Condition], maps: tuple[MapSpec, ...]
    ) -> Expectation:
        """Fit to real (n, maps, X, Y, Z) volumes in physical units."""
        md = [m.name for m in maps].index("md")
        mask = (volumes[:, md] > BACKGROUND_MD).mean(axis=0) >= _ALWAYS
        inside = _network(volumes, maps)[:, :, mask]
        flat = inside.reshape(len(inside), -1)
        coefficients = regress(flat, conditions)
        left = flat - design(conditions) @ coefficients
        freedom = max(len(flat) - len(coefficients), 1)
        spread = np.sqrt((left**2).sum(axis=0) / freedom).reshape(inside.shape[1:])
        floor = np.maximum(_LEAST_SPREAD * np.median(spread, axis=1, keepdims=True), 1e-6)
        return cls(
            maps,
            coefficients.reshape(-1, *inside.shape[1:]),
            np.maximum(spread, floor).astype(np.float32),
            mask,
        )

    def coherence(self, volumes: Array, conditions: Sequence[Condition]) -> Table:
        """Likeness of neighbouring slices across each axis, (n, maps, 3).

        The correlation of r with r one voxel further, where r is what sets a volume apart from
        what its age and sex let expect, in units of real people's spread, less its mean over the
        set (a fault that all volumes share is anatomy's business): 1 if all slices deviate alike,
        0 if each was drawn by itself. r is not centred per slice: slices whose brightness jumps
        are unlike.
        """
        rows = list(zip(volumes, design(conditions), strict=True))
        mean = sum((self._deviation(*row) for row in rows), np.zeros_like(self.spread)) / len(rows)
        out = np.empty((len(rows), len(self.maps), 3))
        r = np.zeros((len(self.maps), *self.mask.shape), dtype=np.float32)
        for i, row in enumerate(rows):
            r[:, self.mask] = self._deviation(*row) - mean
            for axis in range(3):
                here, there = (_but_one(r, axis + 1, k) for k in (0, 1))
                pairs = _but_one(self.mask, axis, 0) & _but_one(self.mask, axis, 1)
                a, b = here[:, pairs], there[:, pairs]
                scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
                out[i, :, axis] = (a * b).sum(axis=1) / np.maximum(scale, 1e-12)
        return out

    def _deviation(self, volume: Array, x: Table) -> Array:
        expected = np.tensordot(x, self.coefficients, axes=1)
        inside = _network(volume[None], self.maps)[0][:, self.mask]
        out: Array = ((inside - expected) / self.spread).astype(np.float32)
        return out


def measures(
    coherence: Table, spectrum: Table, maps: tuple[MapSpec, ...]
) -> tuple[Measure, Measure]:
    """Differences of texture between two groups; they decide nothing.

    Parameters
    ----------
    coherence : (n, maps, 3) of the pooled volumes, see `Expectation.coherence`.
    spectrum : (n, maps, bands) log10 power, see `evaluation.profile.Profiles`.
    """
    names = tuple(f"{spec.label} {plane}" for spec in maps for plane in PLANES)
    return (
        Measure("slice_coherence", "Likeness of neighbouring slices", "",
                mean_difference(coherence.reshape(len(coherence), -1)), parts=names),
        Measure("spectrum_error", "Power spectrum, mean error over bands", "dB",
                spectrum_error(spectrum), "above", factor=10.0),
    )  # fmt: skip


def spectrum_error(spectrum: Table) -> Statistic:
    """Mean over maps and bands of the absolute difference of two groups' mean log10 power."""
    flat = spectrum.reshape(len(spectrum), -1)

    def statistic(first: Table, second: Table) -> Table:
        gap: Table = np.abs((weights(first) - weights(second)) @ flat).mean(axis=1)
        return gap[:, None]

    return statistic


def _network(volumes: Array, maps: tuple[MapSpec, ...]) -> Array:
    return np.stack([m.to_network(volumes[:, k]) for k, m in enumerate(maps)], axis=1)


def _but_one(values: NDArray[Any], axis: int, start: int) -> NDArray[Any]:
    """All but the last (start 0) or the first (start 1) slice along an axis."""
    return np.take(values, range(start, values.shape[axis] - 1 + start), axis=axis)
