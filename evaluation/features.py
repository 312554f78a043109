"""Fixed features of FA and MD volumes that need no trained weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec

Array = NDArray[np.float32]

BLOCK = 8


def to_network(volumes: Array, maps: tuple[MapSpec, ...]) -> Array:
    """(n, maps, X, Y, Z) in physical units, each map divided by its fixed scale."""
    return np.stack([m.to_network(volumes[:, i]) for i, m in enumerate(maps)], axis=1)


def block_features(volumes: Array, block: int = BLOCK) -> NDArray[np.float64]:
    """Mean, standard deviation and mean gradient of each block of each map.

    Means see anatomy and contrast; deviations and gradients see texture, blur and noise.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z).
    block : edge in voxels; a last partial block counts as one.

    Returns
    -------
    (n, features), in the units of the maps.
    """
    n = len(volumes)
    parts = []
    for i in range(n):
        volume = volumes[i].astype(np.float64)
        slope = np.sqrt(sum(g**2 for g in np.gradient(volume, axis=(1, 2, 3))))
        mean, square = _pool(volume, block), _pool(volume**2, block)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        parts.append(np.concatenate([mean.ravel(), spread.ravel(), _pool(slope, block).ravel()]))
    return np.stack(parts)


def _pool(maps: NDArray[np.float64], block: int) -> NDArray[np.float64]:
    pads = [(0, 0)] + [(0, -size % block) for size in maps.shape[1:]]
    padded = np.pad(maps, pads)
    x, y, z = (size // block for size in padded.shape[1:])
    cells = padded.reshape(len(maps), x, block, y, block, z, block)
    pooled: NDArray[np.float64] = cells.mean(axis=(2, 4, 6))
    return pooled


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """Block features standardised on a reference set of real volumes.

    Parameters
    ----------
    keep : features that vary in the reference.
    mean, sd : of the kept ones.
    bandwidth : median distance between two reference subjects, for an RBF kernel.
    """

    keep: NDArray[np.bool_]
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    bandwidth: float

    @classmethod
    def fit(cls, reference: Array) -> FeatureSpace:
        """Learn the standardisation from (n, maps, X, Y, Z) real volumes."""
        raw = block_features(reference)
        sd = raw.std(axis=0)
        # Blocks at the rim that hold a few voxels of one or two brains would dominate.
        occupied = (raw != 0).mean(axis=0) > 0.5
        keep = occupied & (sd > 0)
        mean, sd = raw[:, keep].mean(axis=0), sd[keep]
        points = (raw[:, keep] - mean) / sd
        upper = np.triu_indices(len(points), k=1)
        distances = np.sqrt(np.maximum(squared_distances(points, points)[upper], 0))
        return cls(keep=keep, mean=mean, sd=sd, bandwidth=float(np.median(distances)))

    def __call__(self, volumes: Array) -> NDArray[np.float64]:
        """Standardised features, (n, kept features)."""
        points: NDArray[np.float64] = (block_features(volumes)[:, self.keep] - self.mean) / self.sd
        return points


def squared_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distances, (n, m), of (n, d) and (m, d) points."""
    cross = a @ b.T
    distances: NDArray[np.float64] = (
        (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * cross
    )
    return np.maximum(distances, 0)
