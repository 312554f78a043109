"""Measurements of each volume by itself, from which all comparisons of sets are computed.

Measuring is independent per volume, so that neither the other volumes nor the number of processes
change a measurement, and the memory of an audit grows linearly with its volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.space import Space
from evaluation.block_features import cell_means, features_of_volume, voxels_per_cell
from evaluation.local_texture import correlation, local_texture, pieces
from evaluation.measurement_grid import BACKGROUND_MD, MeasurementGrid

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

BINS = 400
REGION_BINS = 100
TISSUES = ("brain", "white matter", "fluid")
# Thresholds that divide one volume into white matter and fluid by its own values.
WHITE_MATTER_FA = 0.3
_FLUID_MD = 2.0e-3

_FREQUENCY_BANDS = 12
_COARSE_MM = 4.0
# Rounding to 32 bits may leave a value this much above its map's maximum.
_ROUNDING = 1.0001


@dataclass(frozen=True, slots=True)
class Measurements:
    """Measurements of n volumes; the first axis of every array is the volume.

    Parameters
    ----------
    features : (n, F), see `evaluation.block_features`.
    histograms : (n, maps, 400), shares of the brain's voxels in equal bins of [0, maximum].
    region_histograms : (n, maps, regions, 100), the same for each region.
    regions : (n, maps, regions), regional means in physical units.
    asymmetry : (n, maps, regions), (left - right) / (left + right).
    coupling : (n,), correlation of FA and MD over the white matter.
    tissues : (n, 3), the volumes of `TISSUES` in ml.
    spectrum : (n, maps, 12), log10 power per band of spatial frequency.
    texture : (n, 15), see `evaluation.local_texture`.
    pieces : (n,), connected pieces that the brain consists of.
    invalid : (n,), share of impossible voxels: not a number, outside [0, maximum], or tissue
        outside `MeasurementGrid.possible_brain`.
    coarse : (n, x, y, z), smoothed FA in cells of 4 mm; half precision saves memory.
    white_matter : (n, X, Y, Z), brain voxels with FA above 0.3.
    age : (n,), years, as requested or recorded.
    male : (n,), 0 or 1, as requested or recorded.
    """

    features: Float64Array
    histograms: Float64Array
    region_histograms: Float64Array
    regions: Float64Array
    asymmetry: Float64Array
    coupling: Float64Array
    tissues: Float64Array
    spectrum: Float64Array
    texture: Float64Array
    pieces: Float64Array
    invalid: Float64Array
    coarse: NDArray[np.float16]
    white_matter: NDArray[np.bool_]
    age: Float64Array
    male: Float64Array

    def __len__(self) -> int:
        return len(self.age)

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Measurements:
        """Returns the measurements of these rows."""
        return Measurements(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def followed_by(self, other: Measurements) -> Measurements:
        """Returns the measurements of both sets, this one first."""
        return Measurements(
            **{
                f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(self)
            }
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The age and sex of each volume."""
        return tuple(
            Condition(float(a), "M" if m else "F") for a, m in zip(self.age, self.male, strict=True)
        )


def measure_volumes(
    volumes: Iterable[Float32Array],
    conditions: Sequence[Condition],
    grid: MeasurementGrid,
    workers: int = 1,
) -> Measurements:
    """Measures volumes one by one.

    Parameters
    ----------
    volumes : n arrays (maps, X, Y, Z) in physical units.
    conditions : the age and sex of each.
    workers : the number of processes, which does not change the result.
    """
    if workers > 1:
        from concurrent.futures import ProcessPoolExecutor
        from functools import partial
        from multiprocessing import get_context

        # A fork of a process that has threads may hang, so that the processes are not forked.
        with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
            rows = list(pool.map(partial(_measure_volume, grid=grid), volumes, chunksize=8))
    else:
        rows = [_measure_volume(v, grid) for v in volumes]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Measurements(
        **columns,
        age=np.array([c.age for c in conditions]),
        male=np.array([float(c.sex == "M") for c in conditions]),
    )


def _measure_volume(volume: Float32Array, grid: MeasurementGrid) -> dict[str, Any]:
    maps = grid.maps
    names = [m.name for m in maps]
    fa, md = names.index("fa"), names.index("md")
    maximum = np.array([m.maximum for m in maps], dtype=np.float32)[:, None, None, None]
    possible = np.isfinite(volume) & (volume >= 0) & (volume <= maximum * _ROUNDING)
    misplaced = (volume[md] > BACKGROUND_MD) & ~grid.possible_brain
    finite = np.nan_to_num(volume, posinf=0, neginf=0).astype(np.float64)
    brain = finite[md] > BACKGROUND_MD
    scaled = finite / np.array([m.scale for m in maps])[:, None, None, None]
    white_matter = (finite[fa] > WHITE_MATTER_FA) & brain
    fluid = brain & (finite[md] > _FLUID_MD)
    regions, asymmetry = _regional_means(finite, grid)
    return {
        "features": features_of_volume(scaled, grid.space),
        "histograms": np.stack(
            [_histogram(finite[k][brain], m.maximum, BINS) for k, m in enumerate(maps)]
        ),
        "region_histograms": _region_histograms(finite, grid, brain),
        "regions": regions,
        "asymmetry": asymmetry,
        "coupling": np.float64(correlation(finite[fa][white_matter], finite[md][white_matter])),
        "tissues": grid.space.voxel_ml * np.array([brain.sum(), white_matter.sum(), fluid.sum()]),
        "spectrum": np.stack([_power_spectrum(image, grid.space.zooms) for image in scaled]),
        "texture": local_texture(scaled[fa], scaled[md], brain, white_matter, fluid),
        "pieces": np.float64(pieces(brain)),
        "invalid": np.float64((~possible.all(axis=0) | misplaced).mean()),
        "coarse": _coarse(scaled[fa], grid.space),
        "white_matter": white_matter,
    }


def _coarse(fa: Float64Array, space: Space) -> NDArray[np.float16]:
    """Returns FA averaged in cells of 4 mm and smoothed by a Gaussian of one cell; (x, y, z)."""
    from scipy.ndimage import gaussian_filter

    cells = cell_means(fa[None], voxels_per_cell(space, _COARSE_MM))[0]
    smooth: NDArray[np.float16] = gaussian_filter(cells, 1.0).astype(np.float16)
    return smooth


def _histogram(values: Float64Array, maximum: float, bins: int) -> Float64Array:
    counts, _ = np.histogram(np.clip(values, 0, maximum), bins=bins, range=(0.0, maximum))
    shares: Float64Array = counts / max(counts.sum(), 1)
    return shares


def _region_histograms(
    maps: Float64Array, grid: MeasurementGrid, brain: NDArray[np.bool_]
) -> Float64Array:
    """Returns the histogram of each map in each region, (maps, regions, 100)."""
    size = int(grid.labels.max()) + 1
    chosen = (grid.labels > 0) & brain
    label = grid.labels[chosen]
    histograms = []
    for image, spec in zip(maps, grid.maps, strict=True):
        position = np.clip(image[chosen] / spec.maximum, 0, 1)
        column = np.minimum((position * REGION_BINS).astype(np.int64), REGION_BINS - 1)
        # One count over pairs of region and bin is much faster than a histogram per region.
        counts = np.bincount(label * REGION_BINS + column, minlength=size * REGION_BINS)
        rows = counts.reshape(size, REGION_BINS)[sorted(grid.regions)].astype(np.float64)
        histograms.append(rows / np.maximum(rows.sum(axis=1, keepdims=True), 1))
    return np.stack(histograms)


def _regional_means(maps: Float64Array, grid: MeasurementGrid) -> tuple[Float64Array, Float64Array]:
    """Returns the means and the asymmetries of the regions, (maps, regions) each."""
    size = int(grid.labels.max()) + 1
    middle = grid.labels.shape[0] // 2
    labels = sorted(grid.regions)
    sums = np.zeros((2, len(maps), size))
    counts = np.zeros((2, size))
    for side, half in enumerate((slice(0, middle), slice(middle, None))):
        label = grid.labels[half].ravel()
        counts[side] = np.bincount(label, minlength=size)
        for k, image in enumerate(maps):
            sums[side, k] = np.bincount(label, weights=image[half].ravel(), minlength=size)
    mean = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    left, right = sums / np.maximum(counts, 1)[:, None]
    asymmetry = (left - right) / np.maximum(left + right, 1e-12)
    return mean[:, labels], asymmetry[:, labels]


def _power_spectrum(image: Float64Array, zooms: tuple[float, float, float]) -> Float64Array:
    """Returns log10 of the mean power in 12 bands of spatial frequency, (12,).

    The bands have equal widths and end at the highest frequency of the coarsest axis.
    """
    power = np.abs(np.fft.rfftn(image)) ** 2
    axes = [np.fft.fftfreq(n, z) for n, z in zip(image.shape[:2], zooms[:2], strict=True)]
    frequencies = np.meshgrid(*axes, np.fft.rfftfreq(image.shape[2], zooms[2]), indexing="ij")
    relative = np.sqrt(sum(f**2 for f in frequencies)) * 2 * max(zooms)
    # Frequencies above the last band are counted in a further one, which is dropped.
    band = np.minimum((relative * _FREQUENCY_BANDS).astype(np.int64), _FREQUENCY_BANDS).ravel()
    size = _FREQUENCY_BANDS + 1
    total = np.bincount(band, weights=power.ravel(), minlength=size)[:_FREQUENCY_BANDS]
    count = np.bincount(band, minlength=size)[:_FREQUENCY_BANDS]
    spectrum: Float64Array = np.log10(total / np.maximum(count, 1) + 1e-12)
    return spectrum
