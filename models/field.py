"""A Gaussian field of known covariance: free at long wavelengths, stationary at short ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float32]

# Longer waves than this carry what is common to whole lobes: size, tilt, ventricles, contrast.
# They are few enough (about 130 per channel in a head) for a cohort to tell how they vary
# together; of shorter ones it can tell little more than their power.
_LONG_MM = 60.0
_SMOOTH_BINS = 1.0
# Where nothing varies (all masks alike, say) there is no power, and no ratio to it either.
_POWER_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class Covariance:
    """Covariance of a field in an orthonormal basis of cosine waves in which it is diagonal.

    Parameters
    ----------
    power : (C, X, Y, Z), variance of each coefficient of `Waves`, about 1 on average.
    mixture : (C, C), orthonormal columns: combinations of channels that vary independently. FA is
        low where MD is high.
    long : (X, Y, Z), which waves are long.
    modes : (C * L, C * L), orthonormal columns: how the L long waves of all channels mix.
    """

    power: Array
    mixture: Array
    long: NDArray[np.bool_]
    modes: Array

    @classmethod
    def fit(
        cls,
        fields: Sequence[Array] | Array,
        mask: NDArray[np.bool_],
        zooms: tuple[float, float, float],
    ) -> Covariance:
        """Estimate from n fields (C, X, Y, Z) that are zero outside a mask.

        The covariance of long waves is the sample's, shrunk towards the stationary field by as
        much as n calls for. The fields are read twice, one at a time: memory stays flat in n.

        Parameters
        ----------
        zooms : voxel size in mm.
        """
        from scipy.ndimage import gaussian_filter

        n, (channels, *shape) = len(fields), fields[0].shape
        together = np.zeros((channels, channels))
        for one in fields:
            inside = one[:, mask]
            together += np.einsum("cv,dv->cd", inside, inside, dtype=np.float64)
        _, mixture = np.linalg.eigh(together)
        cosines = [_cosines(size) for size in shape]
        long = _long(tuple(shape), zooms)
        power = np.zeros((channels, *shape))
        size = channels * int(long.sum())
        moments = np.zeros((size, size))
        for one in fields:
            mixed = np.tensordot(mixture.T, one, axes=1)
            waves = np.einsum("cxyz,ix,jy,kz->cijk", mixed, *cosines, optimize=True)
            power += waves**2
            moments += np.outer(waves[:, long], waves[:, long]) / n
        # A stationary field fills the whole grid, the mask only a part of it.
        power /= n * mask.mean()
        # A few dozen subjects leave each wave's estimate noisy; power varies smoothly.
        power = np.stack([gaussian_filter(p, _SMOOTH_BINS, mode="mirror") for p in power])
        power = np.maximum(power, _POWER_FLOOR)

        root = np.sqrt(power[:, long]).ravel()
        scales = root * root[:, None]
        variance, modes = np.linalg.eigh(_shrunk(moments / scales, n) * scales)
        power[:, long] = np.maximum(variance, _POWER_FLOOR).reshape(channels, -1)
        return cls(
            power.astype(np.float32), mixture.astype(np.float32), long, modes.astype(np.float32)
        )


def _single(transform: Callable[[Waves, Tensor], Tensor]) -> Callable[[Waves, Tensor], Tensor]:
    """The same transform without autocast.

    In bf16 its sums would be off by more than the noise that is left at small times.
    """

    @wraps(transform)
    def inner(self: Waves, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            return transform(self, values)

    return inner


class Waves(nn.Module):
    """The orthonormal basis of a `Covariance`.

    Coefficients (B, C, X, Y, Z) are those of the cosine transform (DCT-II) of mixed channels; in
    the places of the long waves stand the mixtures of them that vary independently.
    """

    power: Tensor
    mixture: Tensor
    at: Tensor
    modes: Tensor

    def __init__(self, covariance: Covariance) -> None:
        super().__init__()
        self.register_buffer("power", torch.from_numpy(covariance.power))
        self.register_buffer("mixture", torch.from_numpy(covariance.mixture))
        # Places, not a mask: a GPU would have to count a mask's, and stop for it.
        self.register_buffer("at", torch.from_numpy(np.flatnonzero(covariance.long)))
        self.register_buffer("modes", torch.from_numpy(covariance.modes))
        for name, size in zip("xyz", covariance.long.shape, strict=True):
            self.register_buffer(name, torch.from_numpy(_cosines(size).astype(np.float32)))

    @_single
    def forward(self, fields: Tensor) -> Tensor:
        """Coefficients of (B, C, X, Y, Z) fields."""
        x, y, z = (self.get_buffer(name) for name in "xyz")
        waves = self._along(self._channels(fields, self.mixture), x, y, z)
        return self._mix(waves, self.modes)

    @_single
    def inverse(self, coefficients: Tensor) -> Tensor:
        """Fields (B, C, X, Y, Z) of coefficients."""
        waves = self._mix(coefficients, self.modes.T)
        x, y, z = (self.get_buffer(name).T for name in "xyz")
        return self._channels(self._along(waves, x, y, z), self.mixture.T)

    @staticmethod
    def _channels(images: Tensor, by: Tensor) -> Tensor:
        return (by.T @ images.flatten(2)).reshape(images.shape)

    @staticmethod
    def _along(images: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        images = images @ z.T
        images = y @ images
        return (x @ images.flatten(-2)).reshape(images.shape)

    def _mix(self, waves: Tensor, by: Tensor) -> Tensor:
        flat = waves.flatten(2)
        long = flat[..., self.at]
        mixed = (long.flatten(1) @ by).reshape(long.shape)
        return flat.index_copy(2, self.at, mixed).reshape(waves.shape)


def _cosines(size: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II: (wave, place)."""
    from scipy.fft import dct

    rows: NDArray[np.float64] = dct(np.eye(size), axis=0, norm="ortho")
    return rows


def _long(shape: tuple[int, ...], zooms: tuple[float, float, float]) -> NDArray[np.bool_]:
    per_mm = [np.arange(n) / (2 * n * zoom) for n, zoom in zip(shape, zooms, strict=True)]
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*per_mm, indexing="ij")))
    long: NDArray[np.bool_] = frequency <= 1 / _LONG_MM
    return long


def _shrunk(moments: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The second moments (p, p) of n draws, shrunk towards a multiple of the identity.

    The oracle approximating shrinkage of Chen et al. 2010, eq. 23, in the form of
    `sklearn.covariance.oas`, which asks for all draws at once.
    """
    p = len(moments)
    mean = np.trace(moments) / p
    square = (moments**2).mean()
    left = (n + 1) * (square - mean**2 / p)
    share = 1.0 if left == 0 else min((square + mean**2) / left, 1.0)
    shrunk: NDArray[np.float64] = (1 - share) * moments + share * mean * np.eye(p)
    return shrunk
