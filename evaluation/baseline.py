"""The yardstick from closed form: volumes of the conditional Gaussian of the training maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MapSpec
from evaluation.cohort import Cohort
from models.gaussian import ConditionalGaussian

# Half of what the slowest tissue diffuses: blends of heads of several sizes fade out, and this
# is where they are cut. Any lower, and their brains come out too large. mm2/s.
_EMPTY_MD = 0.35e-3


def gaussian_volumes(
    train: Cohort, conditions: Sequence[Condition], seeds: Sequence[int], maps: tuple[MapSpec, ...]
) -> NDArray[np.float32]:
    """One draw per condition and seed from the Gaussian of `train`, physical units."""
    scale = np.array([m.scale for m in maps], dtype=np.float32)[:, None, None, None]
    flat = (train.volumes / scale).reshape(len(train.volumes), -1)
    drawn = ConditionalGaussian.fit(flat, train.conditions).sample(conditions, seeds)
    drawn = drawn.reshape(len(seeds), *train.volumes.shape[1:])
    return brains(drawn, maps)


def brains(images: NDArray[np.float32], maps: tuple[MapSpec, ...]) -> NDArray[np.float32]:
    """Images (n, maps, X, Y, Z) in network range as volumes in physical units.

    Clipped to the possible, and zero where too little diffuses for a brain: for generators that
    know no brain mask.
    """
    out = np.stack([m.clip(m.from_network(images[:, i])) for i, m in enumerate(maps)], axis=1)
    md = [m.name for m in maps].index("md")
    return np.where(out[:, md : md + 1] > _EMPTY_MD, out, np.float32(0))
