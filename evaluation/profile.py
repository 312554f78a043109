"""What is measured of each volume by itself; all comparisons are made of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MapSpec
from contracts.space import Space

Array = NDArray[np.float32]
Table = NDArray[np.float64]

BINS = 400
REGION_BINS = 100
_BANDS = 12
_BLOCK_MM = 32.0
_COARSE_MM = 4.0
# White matter and fluid of one volume, by its own values.
WHITE_FA = 0.3
_FLUID_MD = 2.0e-3
# Diffusivity of living tissue is several times this; the background of a map is zero. mm2/s.
BACKGROUND_MD = 0.1e-3
TISSUES = ("brain", "white matter", "fluid")


@dataclass(frozen=True, slots=True)
class Frame:
    """What volumes are measured in.

    Parameters
    ----------
    space : their grid; its first axis runs from left to right, symmetric about the midline.
    labels : (X, Y, Z) regions, 0 outside.
    regions : number and name of each region.
    reach : (X, Y, Z), where any real brain is, with a margin.
    """

    space: Space
    maps: tuple[MapSpec, ...]
    labels: NDArray[np.int32]
    regions: dict[int, str]
    reach: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        space: Space,
        maps: tuple[MapSpec, ...],
        real: Array,
        atlas: tuple[NDArray[np.int32], dict[int, str]] | None,
    ) -> Frame:
        """A frame for real (n, maps, X, Y, Z) volumes.

        Without an atlas, the regions are octants of the brain's bounding box.
        """
        from scipy.ndimage import binary_dilation

        md = [m.name for m in maps].index("md")
        anywhere = np.any(real[:, md] > BACKGROUND_MD, axis=0)
        labels, regions = atlas if atlas is not None else _octants(anywhere)
        return cls(space, maps, labels, regions, binary_dilation(anywhere, iterations=2))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the regions, in the order of their numbers."""
        return tuple(self.regions[k].replace("_", " ") for k in sorted(self.regions))


@dataclass(frozen=True, slots=True)
class Profiles:
    """Measurements of n volumes; every array's first axis is the volume.

    Parameters
    ----------
    features : (n, F), mean, standard deviation and gradient of blocks, both hemispheres
        averaged, in network range.
    histograms : (n, maps, 400), shares of in-brain voxels in equal bins of [0, maximum].
    region_histograms : (n, maps, regions, 100).
    regions : (n, maps, regions), means in physical units.
    asymmetry : (n, maps, regions), (left - right) / (left + right).
    coupling : (n,), correlation of FA and MD over white matter.
    tissues : (n, 3), ml of `TISSUES`.
    spectrum : (n, maps, 12), log10 power per band of spatial frequency.
    invalid : (n,), share of voxels that are impossible: not a number, outside [0, maximum], or
        tissue far from where brains are.
    coarse : (n, x, y, z), FA in cells of 4 mm, smoothed, half precision.
    white : (n, X, Y, Z), FA above 0.3.
    age : (n,) years; male : (n,) 0 or 1. As requested or recorded.
    """

    features: Table
    histograms: Table
    region_histograms: Table
    regions: Table
    asymmetry: Table
    coupling: Table
    tissues: Table
    spectrum: Table
    invalid: Table
    coarse: NDArray[np.float16]
    white: NDArray[np.bool_]
    age: Table
    male: Table

    def __len__(self) -> int:
        return len(self.age)

    def take(self, rows: Sequence[int] | NDArray[Any]) -> Profiles:
        """The volumes of these rows."""
        return Profiles(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def followed_by(self, other: Profiles) -> Profiles:
        """Both sets, this one first."""
        return Profiles(
            **{
                f.name: np.concatenate([getattr(self, f.name), getattr(other, f.name)])
                for f in fields(self)
            }
        )

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Age and sex of each."""
        return tuple(
            Condition(float(a), "M" if m else "F") for a, m in zip(self.age, self.male, strict=True)
        )


def measure(
    volumes: Iterable[Array], conditions: Sequence[Condition], frame: Frame, workers: int = 1
) -> Profiles:
    """Measure (maps, X, Y, Z) volumes in physical units; the number of workers changes nothing."""
    if workers > 1:
        from concurrent.futures import ProcessPoolExecutor
        from functools import partial
        from multiprocessing import get_context

        # Not fork: a fork of a process with threads may hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
            rows = list(pool.map(partial(_one, frame=frame), volumes, chunksize=8))
    else:
        rows = [_one(v, frame) for v in volumes]
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Profiles(
        **columns,
        age=np.array([c.age for c in conditions]),
        male=np.array([float(c.sex == "M") for c in conditions]),
    )


def _one(volume: Array, frame: Frame) -> dict[str, Any]:
    maps = frame.maps
    names = [m.name for m in maps]
    fa, md = names.index("fa"), names.index("md")
    maximum = np.array([m.maximum for m in maps], dtype=np.float32)[:, None, None, None]
    possible = np.isfinite(volume) & (volume >= 0) & (volume <= maximum * 1.0001)
    stray = (volume[md] > BACKGROUND_MD) & ~frame.reach
    clean = np.nan_to_num(volume, posinf=0, neginf=0).astype(np.float64)
    inside = clean[md] > BACKGROUND_MD
    network = clean / np.array([m.scale for m in maps])[:, None, None, None]
    white = (clean[fa] > WHITE_FA) & inside
    voxel = frame.space.voxel_ml
    regions, asymmetry = _regions(clean, frame)
    return {
        "features": _features(network, frame.space),
        "histograms": np.stack(
            [_shares(clean[k][inside], m.maximum, BINS) for k, m in enumerate(maps)]
        ),
        "region_histograms": _region_histograms(clean, frame, inside),
        "regions": regions,
        "asymmetry": asymmetry,
        "coupling": np.float64(_correlation(clean[fa][white], clean[md][white])),
        "tissues": voxel
        * np.array([inside.sum(), white.sum(), (inside & (clean[md] > _FLUID_MD)).sum()]),
        "spectrum": np.stack([_bands(network[k], frame.space.zooms) for k in range(len(maps))]),
        "invalid": np.float64((~possible.all(axis=0) | stray).mean()),
        "coarse": _coarse(network[fa], frame.space),
        "white": white,
    }


def _edges(space: Space, mm: float) -> tuple[int, int, int]:
    x, y, z = (max(1, round(mm / zoom)) for zoom in space.zooms)
    return x, y, z


def _cells(maps: Table, edge: tuple[int, int, int]) -> Table:
    """Means of cells of `edge` voxels, (maps, x, y, z); a last partial cell counts as one."""
    pads = [(0, 0)] + [(0, -n % e) for n, e in zip(maps.shape[1:], edge, strict=True)]
    padded = np.pad(maps, pads)
    x, y, z = (n // e for n, e in zip(padded.shape[1:], edge, strict=True))
    split = padded.reshape(len(maps), x, edge[0], y, edge[1], z, edge[2])
    out: Table = split.mean(axis=(2, 4, 6))
    return out


def _coarse(fa: Table, space: Space) -> NDArray[np.float16]:
    from scipy.ndimage import gaussian_filter

    cells = _cells(fa[None], _edges(space, _COARSE_MM))[0]
    out: NDArray[np.float16] = gaussian_filter(cells, 1.0).astype(np.float16)
    return out


def features(volumes: Array, space: Space, maps: tuple[MapSpec, ...]) -> Table:
    """`Profiles.features` alone, of (n, maps, X, Y, Z) volumes."""
    scale = np.array([m.scale for m in maps])[:, None, None, None]
    return np.stack([_features(v.astype(np.float64) / scale, space) for v in volumes])


def _features(network: Table, space: Space) -> Table:
    edge = _edges(space, _BLOCK_MM)
    slope = np.sqrt(sum(g**2 for g in np.gradient(network, axis=(1, 2, 3))))
    mean, square = _cells(network, edge), _cells(network**2, edge)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    blocks = np.stack([mean, spread, _cells(slope, edge)])
    # Left and right are anatomy's business; here a volume and its mirror image are alike.
    folded = (blocks + blocks[:, :, ::-1]) / 2
    out: Table = folded[:, :, : (folded.shape[2] + 1) // 2].ravel()
    return out


def _shares(values: Table, maximum: float, bins: int) -> Table:
    counts, _ = np.histogram(np.clip(values, 0, maximum), bins=bins, range=(0.0, maximum))
    out: Table = counts / max(counts.sum(), 1)
    return out


def _region_histograms(maps: Table, frame: Frame, inside: NDArray[np.bool_]) -> Table:
    size = int(frame.labels.max()) + 1
    chosen = (frame.labels > 0) & inside
    label = frame.labels[chosen]
    out = []
    for k, spec in enumerate(frame.maps):
        share = np.clip(maps[k][chosen] / spec.maximum, 0, 1)
        column = np.minimum((share * REGION_BINS).astype(np.int64), REGION_BINS - 1)
        counts = np.bincount(label * REGION_BINS + column, minlength=size * REGION_BINS)
        rows = counts.reshape(size, REGION_BINS)[sorted(frame.regions)].astype(np.float64)
        out.append(rows / np.maximum(rows.sum(axis=1, keepdims=True), 1))
    return np.stack(out)


def _regions(maps: Table, frame: Frame) -> tuple[Table, Table]:
    size = int(frame.labels.max()) + 1
    middle = frame.labels.shape[0] // 2
    keys = sorted(frame.regions)
    halves = (slice(0, middle), slice(middle, None))
    sums = np.zeros((2, len(maps), size))
    counts = np.zeros((2, size))
    for side, half in enumerate(halves):
        label = frame.labels[half].ravel()
        counts[side] = np.bincount(label, minlength=size)
        for k, image in enumerate(maps):
            sums[side, k] = np.bincount(label, weights=image[half].ravel(), minlength=size)
    mean = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    left, right = sums / np.maximum(counts, 1)[:, None]
    asymmetry = (left - right) / np.maximum(left + right, 1e-12)
    return mean[:, keys], asymmetry[:, keys]


def _correlation(a: Table, b: Table) -> float:
    if len(a) < 3 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _bands(image: Table, zooms: tuple[float, float, float]) -> Table:
    power = np.abs(np.fft.rfftn(image)) ** 2
    axes = [np.fft.fftfreq(n, z) for n, z in zip(image.shape[:2], zooms[:2], strict=True)]
    grid = np.meshgrid(*axes, np.fft.rfftfreq(image.shape[2], zooms[2]), indexing="ij")
    radius = np.sqrt(sum(g**2 for g in grid)) * 2 * max(zooms)
    band = np.minimum((radius * _BANDS).astype(np.int64), _BANDS)
    total = np.bincount(band.ravel(), weights=power.ravel(), minlength=_BANDS + 1)[:_BANDS]
    count = np.bincount(band.ravel(), minlength=_BANDS + 1)[:_BANDS]
    out: Table = np.log10(total / np.maximum(count, 1) + 1e-12)
    return out


def _octants(anywhere: NDArray[np.bool_]) -> tuple[NDArray[np.int32], dict[int, str]]:
    ends = ("inferior", "superior"), ("posterior", "anterior")
    places = np.argwhere(anywhere)
    y, z = (places[:, a].min() + places[:, a].max() + 1 for a in (1, 2))
    grid = np.indices(anywhere.shape)
    label = 1 + (2 * grid[2] >= z).astype(np.int32) + 2 * (2 * grid[1] >= y).astype(np.int32)
    names = {1 + s + 2 * a: f"{ends[1][a]} {ends[0][s]}" for s in (0, 1) for a in (0, 1)}
    return np.where(anywhere, label, 0).astype(np.int32), names
