"""Is a volume one piece? Likeness of neighbouring slices, and error of the power spectrum.

Reported, never a verdict: who compares generators of slices with generators of volumes asks this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MapSpec
from evaluation.comparison import Measure, Statistic, Table, mean_difference, weights
from evaluation.profile import BACKGROUND_MD
from models.gaussian import design, regress

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
    coefficients : (4, maps, voxels) regression on `models.gaussian.design`, network range.
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

        The correlation of r, what sets a volume apart from what its age and sex let expect in
        units of real people's spread, with r one voxel further: 1 if all slices deviate alike,
        0 if each was drawn by itself. r is not centred per slice: slices whose brightness jumps
        are unlike.
        """
        out = np.zeros((len(volumes), len(self.maps), 3))
        r = np.zeros((len(self.maps), *self.mask.shape))
        for i, (volume, x) in enumerate(zip(volumes, design(conditions), strict=True)):
            expected = np.tensordot(x, self.coefficients, axes=1)
            inside = _network(volume[None], self.maps)[0][:, self.mask]
            r[:, self.mask] = (inside - expected) / self.spread
            for axis in range(3):
                size = self.mask.shape[axis]
                here, there = (
                    np.take(r, range(k, size - 1 + k), axis=axis + 1).reshape(len(r), -1)
                    for k in (0, 1)
                )
                pairs = (
                    np.take(self.mask, range(size - 1), axis=axis)
                    & np.take(self.mask, range(1, size), axis=axis)
                ).ravel()
                a, b = here[:, pairs], there[:, pairs]
                scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
                out[i, :, axis] = (a * b).sum(axis=1) / np.maximum(scale, 1e-12)
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
