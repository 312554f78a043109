"""Means of FA and MD in brain regions, and how far those of two groups of volumes are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cohort.regression import design
from contracts.condition import Condition
from evaluation.measurement_grid import BACKGROUND_MD

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RegionalMeans:
    """Measures the means of FA and MD in regions, in units of how much they vary between people.

    Parameters
    ----------
    labels : (X, Y, Z), the region of each voxel; 0 outside all regions.
    spread : (2, R), standard deviation of FA and MD of each region between people of one age and
        sex, in physical units; regions are sorted by label.
    """

    labels: NDArray[np.int32]
    spread: Float64Array

    @classmethod
    def of(
        cls, labels: NDArray[np.int32], volumes: Float32Array, conditions: Sequence[Condition]
    ) -> RegionalMeans:
        """Takes the spread from people of one group.

        Parameters
        ----------
        volumes : (n, maps, X, Y, Z) in physical units, FA and MD first.
        """
        count = len(np.unique(labels[labels > 0]))
        made = cls(labels, np.ones((2, count)))
        means, rows = made(volumes), design(conditions)
        flat = means.reshape(len(means), -1)
        residual = flat - rows @ np.linalg.lstsq(rows, flat, rcond=None)[0]
        freedom = max(len(rows) - np.linalg.matrix_rank(rows), 1)
        spread = np.sqrt((residual**2).sum(axis=0) / freedom)
        return replace(made, spread=spread.reshape(2, count))

    def __call__(self, volumes: Float32Array) -> Float64Array:
        """Returns the means of FA and MD in the brain's part of each region, (n, 2, R).

        They are in standard deviations `spread`. A region that does not vary has the mean zero, and
        so has one that a brain does not reach.
        """
        means = np.stack([self._of_volume(volume) for volume in volumes])
        return np.divide(means, self.spread, out=np.zeros_like(means), where=self.spread > 0)

    def _of_volume(self, volume: Float32Array) -> Float64Array:
        inside = (volume[1] > BACKGROUND_MD) & (self.labels > 0)
        label, numbers = self.labels[inside], np.unique(self.labels[self.labels > 0])
        size = int(numbers.max()) + 1
        count = np.maximum(np.bincount(label, minlength=size), 1)
        sums = [np.bincount(label, weights=one[inside], minlength=size) for one in volume[:2]]
        means: Float64Array = (np.stack(sums) / count)[:, numbers]
        return means

    def differences(self, volumes: Float32Array, others: Float32Array) -> Float64Array:
        """Returns the mean of volumes less that of others in each region, Cohen's d, (2, R)."""
        difference: Float64Array = self(volumes).mean(axis=0) - self(others).mean(axis=0)
        return difference

    def distance(self, volumes: Float32Array, others: Float32Array) -> float:
        """Returns how far the regional means of two groups are apart, see `distance_of_means`."""
        return distance_of_means(self(volumes), self(others))


def distance_of_means(first: Float64Array, second: Float64Array) -> float:
    """Returns how far the regional means of two groups are apart.

    It is the root mean square, over regions and both maps, of the 2-Wasserstein distance
    between two normal distributions: d^2 + (s_1 - s_2)^2 with d of `RegionalMeans.differences` and
    the standard deviations s within each group (Dowson & Landau 1982, eq. 4, in one dimension).
    Two groups of the same people differ by chance, the more the smaller they are.

    Parameters
    ----------
    first, second : (n, 2, R) and (m, 2, R), in standard deviations.
    """
    d = first.mean(axis=0) - second.mean(axis=0)
    s = first.std(axis=0) - second.std(axis=0)
    return float(np.sqrt((d**2 + s**2).mean()))
