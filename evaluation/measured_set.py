"""A volume set and its measurements, which is what an audit compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluation.measurement_grid import MeasurementGrid
from evaluation.measurements import Measurements, measure_volumes
from evaluation.volume_set import VolumeSet


@dataclass(frozen=True, slots=True)
class MeasuredSet:
    """The measurements of a volume set, and its FA maps for the similarity of pairs.

    Parameters
    ----------
    measurements : of the n volumes.
    fa : (n, X, Y, Z).
    ids : (n), the name of each volume; empty where the volumes have no names.
    """

    measurements: Measurements
    fa: NDArray[np.float32]
    ids: Sequence[str] = ()

    @classmethod
    def from_volumes(
        cls, volume_set: VolumeSet, grid: MeasurementGrid, workers: int = 1
    ) -> MeasuredSet:
        """Measures a volume set in `workers` processes."""
        fa = [m.name for m in grid.maps].index("fa")
        measurements = measure_volumes(volume_set.volumes, volume_set.conditions, grid, workers)
        return cls(measurements, volume_set.volumes[:, fa], volume_set.ids)

    def take(self, rows: NDArray[np.int64]) -> MeasuredSet:
        """Returns the volumes of these rows."""
        ids = tuple(self.ids[i] for i in rows) if self.ids else ()
        return MeasuredSet(self.measurements.take(rows), self.fa[rows], ids)

    def with_shuffled_ages(self, seed: int = 0) -> MeasuredSet:
        """Returns the same volumes with their ages permuted at random.

        An audit shows such a set beside a synthetic one: it is what a generator scores that does
        not follow the requested age at all.
        """
        order = np.random.default_rng(seed).permutation(len(self.measurements))
        ages = self.measurements.age[order]
        return replace(self, measurements=replace(self.measurements, age=ages))
