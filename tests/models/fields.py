"""Covariances of known form, for tests."""

from __future__ import annotations

import numpy as np
from models.field import Covariance

SHAPE = (8, 16, 8)


def stationary(power: np.ndarray) -> Covariance:
    """A field whose waves (C, X, Y, Z) are independent."""
    return Covariance(
        power=power.astype(np.float32),
        modes=np.zeros((0, *power.shape), dtype=np.float16),
        variance=np.zeros(0, dtype=np.float32),
    )


def white(channels: int) -> Covariance:
    """Every voxel by itself, of variance one."""
    return stationary(np.ones((channels, *SHAPE)))


def coloured(channels: int, peak: float = 8.0) -> Covariance:
    """A smooth field: power falls with frequency."""
    radius = frequency(SHAPE)
    return stationary(np.stack([peak * np.exp(-((radius / 0.15) ** 2)) + 0.2] * channels))


def frequency(shape: tuple[int, ...]) -> np.ndarray:
    """Cycles per voxel of each cosine wave."""
    axes = np.meshgrid(*[np.arange(n) / (2 * n) for n in shape], indexing="ij")
    return np.sqrt(sum(f**2 for f in axes))
