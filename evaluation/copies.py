"""Disguised copies of training subjects, which an audit has to find.

`plant_canaries` plants them in any synthetic set, to show that the audit of this very set would
find them. The others are controls of the judge, see `evaluation.controls`.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from contracts.maps import FA, MD
from evaluation.measurement_grid import BACKGROUND_MD
from evaluation.volume_set import VolumeSet

Float32Array = NDArray[np.float32]

_HIDDEN = 3
# The smoothness of a random warp and its largest displacement, in voxels.
_WARP_SIGMA = 5.0
_WARP_LARGEST = 1.5
_FA_NOISE, _MD_NOISE = 0.02, 0.02e-3


def plant_canaries(volume_set: VolumeSet, train: VolumeSet, count: int, seed: int = 0) -> VolumeSet:
    """Replaces the first volumes of a set by disguised training subjects, named canary 0, 1, ...

    Each canary is a training subject shifted by one voxel and brightened by 3 %, with noise of
    standard deviation 0.02 in FA and 0.02e-3 mm2/s in MD added.

    Parameters
    ----------
    count : the number of canaries.
    """
    rng = np.random.default_rng(seed)
    chosen = train.take(rng.permutation(len(train))[:count])
    volumes = np.roll(chosen.volumes, 1, axis=3) * np.float32(1.03)
    noise = per_map(_FA_NOISE, _MD_NOISE) * rng.standard_normal(volumes.shape, dtype=np.float32)
    volumes = possible(np.where(volumes != 0, volumes + noise, 0))
    return _in_front(volumes, chosen, "canary", volume_set)


def copies(new: VolumeSet, train: VolumeSet) -> VolumeSet:
    """Returns training subjects, as many as there are new volumes."""
    return train.take(np.arange(min(len(train), len(new))))


def half_copies(new: VolumeSet, train: VolumeSet) -> VolumeSet:
    """Returns the new volumes with training subjects in place of the first half."""
    half = len(new) // 2
    return train.take(np.arange(half)).followed_by(new.take(np.arange(half, len(new))))


def hidden_copies(new: VolumeSet, train: VolumeSet) -> VolumeSet:
    """Returns the new volumes with three canaries in place of the first three."""
    return plant_canaries(new, train, _HIDDEN)


def warped_copies(new: VolumeSet, train: VolumeSet) -> VolumeSet:
    """Returns the new volumes with three smoothly warped training subjects in front.

    The warps are random; each moves voxels by up to one and a half voxels.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    rng = np.random.default_rng(4)
    chosen = train.take(rng.permutation(len(train))[:_HIDDEN])
    volumes = np.empty_like(chosen.volumes)
    identity = np.stack(np.meshgrid(*map(np.arange, volumes.shape[2:]), indexing="ij"))
    for i, volume in enumerate(chosen.volumes):
        sigma = (0, _WARP_SIGMA, _WARP_SIGMA, _WARP_SIGMA)
        displacement = gaussian_filter(rng.standard_normal(identity.shape), sigma)
        displacement *= _WARP_LARGEST / np.sqrt((displacement**2).sum(axis=0)).max()
        where = identity + displacement
        brain = map_coordinates((volume[1] > BACKGROUND_MD).astype(np.float32), where) > 0.5
        for k, image in enumerate(volume):
            volumes[i, k] = np.where(brain, map_coordinates(image, where, order=1), 0)
    return _in_front(possible(volumes), chosen, "bent", new)


def blends(new: VolumeSet, train: VolumeSet) -> VolumeSet:
    """Returns the new volumes with three means of two training subjects in front.

    The two subjects of a mean have the same sex and are next to each other in age.
    """
    pairs: list[tuple[int, int]] = []
    for sex in "FM":
        rows = [i for i, c in enumerate(train.conditions) if c.sex == sex]
        rows.sort(key=lambda i: train.conditions[i].age)
        pairs += list(pairwise(rows))[:: max(len(rows) // 2, 1)]
    pairs = pairs[:_HIDDEN]
    volumes = np.stack([train.volumes[list(p)].mean(axis=0) for p in pairs])
    return _in_front(volumes, train.take([p[0] for p in pairs]), "blend", new)


def per_map(fa: float, md: float) -> Float32Array:
    """Returns a value for each map that broadcasts over (n, maps, X, Y, Z)."""
    return np.array([fa, md], dtype=np.float32)[None, :, None, None, None]


def possible(volumes: Float32Array) -> Float32Array:
    """Clips (n, 2, X, Y, Z) volumes to the possible range of FA and MD."""
    return np.clip(volumes, 0, per_map(FA.maximum, MD.maximum))


def _in_front(volumes: Float32Array, people: VolumeSet, name: str, others: VolumeSet) -> VolumeSet:
    """Returns `others` with their first volumes replaced by `volumes`, named name 0, name 1, ..."""
    count = len(volumes)
    first = VolumeSet(volumes, people.conditions, tuple(f"{name} {i}" for i in range(count)))
    return first.followed_by(others.take(np.arange(count, len(others))))
