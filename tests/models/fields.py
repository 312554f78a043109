"""Covariances of known form, for tests."""

from __future__ import annotations

import numpy as np

from models.prior.covariance import Covariance
from models.prior.stationary import StationaryField

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


def orthonormal(count: int, seed: int = 0) -> np.ndarray:
    """Random modes (count, 2, X, Y, Z)."""
    rng = np.random.default_rng(seed)
    columns, _ = np.linalg.qr(rng.standard_normal((2 * np.prod(SHAPE), count)))
    return columns.T.reshape(count, 2, *SHAPE)


def with_modes(count: int = 3) -> Covariance:
    """A coloured field and a few modes of much variance."""
    variance = np.linspace(200, 300, count, dtype=np.float32)
    return Covariance(coloured(2).power, orthonormal(count).astype(np.float16), variance)


def flat(channels: int, shape: tuple[int, ...] = SHAPE) -> StationaryField:
    """The field that is the noise it is drawn from, on the first half of each axis."""
    return StationaryField(np.ones((channels, *(n + 1 for n in shape)), dtype=np.float32))


def frequency(shape: tuple[int, ...]) -> np.ndarray:
    """Cycles per voxel of each cosine wave."""
    axes = np.meshgrid(*[np.arange(n) / (2 * n) for n in shape], indexing="ij")
    return np.sqrt(sum(f**2 for f in axes))
