"""A Gaussian field of known covariance: stationary, but for a few modes that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[np.float32]

_SMOOTH_BINS = 1.0
# Where nothing varies (all masks alike, say) there is no power, and no ratio to it either.
_POWER_FLOOR = 1e-3
# Lags at which less of the mask overlaps itself than this say more of noise than of the field.
_LEAST_OVERLAP = 0.02
# What many subjects have in common: at most so many principal components, each of which explains
# at least this share of what it explains in its own sample in subjects it was not made from.
_MOST_COMMON = 4
_COMMON_SHARE = 0.4
_FOLDS = 5
# More subjects than this say little more about what they have in common.
_ENOUGH = 300
# Of the fields that are multiplied with others at a time.
_BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Covariance:
    """Covariance of a field: a few modes of known variance, and stationary in what they leave.

    Parameters
    ----------
    power : (C, X, Y, Z), variance of each cosine wave (DCT-II) of the stationary part, about 1 on
        average; channels are independent there.
    modes : (K, C, X, Y, Z), orthonormal fields, half precision.
    variance : (K,), of their coefficients.
    """

    power: Array
    modes: NDArray[np.float16]
    variance: Array

    @classmethod
    def fit(
        cls,
        fields: Sequence[Array] | Array,
        mask: NDArray[np.bool_],
        weight: Array,
        directions: Array,
    ) -> Covariance:
        """Estimate from n fields (C, X, Y, Z) that are zero outside a mask.

        The modes span `directions`, and what the subjects have in common beyond them. The
        covariance of the former is the sample's, shrunk towards independence by as much as n
        calls for (the oracle approximating shrinkage of Chen et al. 2010, eq. 23). The
        autocorrelation of what is left is averaged over all places where both ends lie in the
        mask, so that its extent does not matter.

        Parameters
        ----------
        weight : (C, X, Y, Z), how much a place counts.
        directions : (D, C, X, Y, Z), linearly independent or not; D may be 0.
        """
        modes, variance = _spanned(fields, directions)
        common, shared = _common(fields, modes)
        modes = np.concatenate([modes, common])
        power = stationary_power(fields, mask, weight, modes)
        shape = (len(modes), *power.shape)
        return cls(
            power.astype(np.float32),
            modes.reshape(shape).astype(np.float16),
            np.concatenate([variance, shared]).astype(np.float32),
        )


class Waves(nn.Module):
    """The orthonormal basis in which a `Covariance` is diagonal.

    Coefficients (B, C, X, Y, Z) are those of the cosine transform, turned so that the modes come
    first. The turn is a product of K reflections that leaves what is orthogonal to the modes
    nearly as it was: I - U T U', the compact form of Schreiber & Van Loan (1989).
    """

    power: Tensor
    reflectors: Tensor
    turned: Tensor

    def __init__(self, covariance: Covariance) -> None:
        super().__init__()
        for name, size in zip("xyz", covariance.power.shape[1:], strict=True):
            self.register_buffer(name, torch.from_numpy(_cosines(size).astype(np.float32)))
        modes = self._cosine(torch.from_numpy(covariance.modes.astype(np.float32)))
        reflectors, triangle = _reflections(modes.flatten(1).double().numpy())
        self.register_buffer("reflectors", torch.from_numpy(reflectors.astype(np.float32)))
        # T' U', rather than T: in a product with a matrix as small as T some processors round the
        # volumes of a batch in different ways.
        self.register_buffer(
            "turned", torch.from_numpy((triangle.T @ reflectors).astype("float32"))
        )
        power = covariance.power.copy()
        power.ravel()[: len(modes)] = covariance.variance
        self.register_buffer("power", torch.from_numpy(power))

    def forward(self, fields: Tensor) -> Tensor:
        """Coefficients of (B, C, X, Y, Z) fields."""
        return self._less(self._cosine(fields), self.turned, self.reflectors)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Fields (B, C, X, Y, Z) of coefficients."""
        x, y, z = (self.get_buffer(name).T for name in "xyz")
        return self._along(self._less(coefficients, self.reflectors, self.turned), x, y, z)

    @torch.no_grad()
    def variance(self) -> Tensor:
        """Variance (C, X, Y, Z) of the field in each voxel: the diagonal of its covariance."""
        x, y, z = (self.get_buffer(name).T for name in "xyz")
        out = self._along(self.power[None], x**2, y**2, z**2)[0]

        def field(waves: Tensor) -> Tensor:
            return self._along(waves.view(1, *out.shape), x, y, z)[0]

        # Q = I - P U' with P = U T, S = diag(power), G = U' S U:
        # Q S Q' = S - P U' S - S U P' + P G P'.
        turned = torch.stack([out, *(field(wave) for wave in self.turned)])[1:]
        weighed = self.reflectors * self.power.flatten()
        gram = weighed @ self.reflectors.T
        for one, wave, row in zip(turned, weighed, gram, strict=True):
            out += one * (torch.tensordot(row, turned, dims=1) - 2 * field(wave))
        return out

    def _cosine(self, fields: Tensor) -> Tensor:
        x, y, z = (self.get_buffer(name) for name in "xyz")
        return self._along(fields, x, y, z)

    @staticmethod
    def _less(waves: Tensor, along: Tensor, to: Tensor) -> Tensor:
        flat = waves.flatten(1)
        return (flat - (flat @ along.T) @ to).reshape(waves.shape)

    @staticmethod
    def _along(images: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        images = images @ z.T
        images = y @ images
        return (x @ images.flatten(-2)).reshape(images.shape)


def _reflections(modes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """U' (K, N) and T (K, K) of the turn I - U T U' whose transpose takes modes to the first K."""
    count = len(modes)
    if count == 0:
        return modes, np.zeros((0, 0))
    raw, tau = np.linalg.qr(modes.T, mode="raw")
    reflectors = np.triu(raw, k=1)
    reflectors[np.arange(count), np.arange(count)] = 1
    triangle = np.zeros((count, count))
    for k in range(count):
        triangle[:k, k] = -tau[k] * triangle[:k, :k] @ (reflectors[:k] @ reflectors[k])
        triangle[k, k] = tau[k]
    return reflectors, triangle


def _spanned(
    fields: Sequence[Array] | Array, directions: Array
) -> tuple[Array, NDArray[np.float64]]:
    """Orthonormal modes (K, N) that span the directions, and their variances."""
    from sklearn.covariance import oas

    flat = directions.reshape(len(directions), int(np.prod(directions.shape[1:])))
    if len(flat) == 0:
        return flat, np.zeros(0)
    # Through the small Gram matrix: directions are few and long.
    size, turn = np.linalg.eigh((flat @ flat.T).astype(np.float64))
    kept = size > 1e-6 * size[-1]
    basis = ((turn[:, kept] / np.sqrt(size[kept])).T @ flat).astype(np.float32)
    found = np.stack([basis @ one.ravel() for one in fields]).astype(np.float64)
    spread = np.maximum(np.sqrt((found**2).mean(axis=0)), np.sqrt(_POWER_FLOOR))
    shrunk, _ = oas(found / spread, assume_centered=True)
    variance, turn = np.linalg.eigh(shrunk * spread * spread[:, None])
    return (turn.T @ basis).astype(np.float32), np.maximum(variance, _POWER_FLOOR)


def _common(fields: Sequence[Array] | Array, modes: Array) -> tuple[Array, NDArray[np.float64]]:
    """Principal components of what the modes leave that hold in other subjects, with the variance
    that they have there (five-fold cross-validation)."""
    n, size = min(len(fields), _ENOUGH), fields[0].size
    if n < 4 * _FOLDS:
        return np.zeros((0, size), dtype=np.float32), np.zeros(0)

    def row(i: int) -> Array:
        return _rest(fields[i], modes).ravel()

    gram = _products(row, n, max(_BLOCK_BYTES // (4 * size), 1))
    held = np.zeros((n, _MOST_COMMON))
    for fold in range(_FOLDS):
        new = np.arange(n) % _FOLDS == fold
        _, vectors = _components(gram[np.ix_(~new, ~new)])
        held[new] = (gram[np.ix_(new, ~new)] @ vectors) ** 2
    values, vectors = _components(gram)
    variance = held.mean(axis=0)
    holds = variance >= _COMMON_SHARE * values / n
    count = _MOST_COMMON if holds.all() else int(holds.argmin())
    components = np.zeros((count, size), dtype=np.float32)
    for i in range(n if count else 0):
        components += np.outer(vectors[i, :count].astype(np.float32), row(i))
    return components, variance[:count]


def _products(row: Callable[[int], Array], n: int, together: int) -> NDArray[np.float64]:
    """Gram matrix (n, n) of n rows, of which so many are held in memory."""
    gram = np.zeros((n, n))
    for first in range(0, n, together):
        held = np.stack([row(i) for i in range(first, min(first + together, n))])
        last = first + len(held)
        gram[first:last, first:last] = held @ held.T
        for i in range(last, n):
            gram[i, first:last] = gram[first:last, i] = held @ row(i)
    return gram


def _components(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest eigenvalues, and weights of rows whose sums are principal components of length 1."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values[::-1][:_MOST_COMMON], 1e-12)
    return values, vectors[:, ::-1][:, :_MOST_COMMON] / np.sqrt(values)


def _rest(field: Array, modes: Array) -> Array:
    flat = field.ravel()
    return np.asarray(flat - (modes @ flat) @ modes, dtype=np.float32).reshape(field.shape)


def stationary_power(
    fields: Sequence[Array] | Array,
    mask: NDArray[np.bool_],
    weight: Array,
    modes: Array,
) -> NDArray[np.float64]:
    """Variance (C, X, Y, Z) of each cosine wave in what orthonormal modes (K, C * X * Y * Z) leave
    of the fields, from their weighted autocorrelation; arguments as in `Covariance.fit`."""
    from scipy.fft import fftn, irfftn, rfftn
    from scipy.ndimage import gaussian_filter

    shape = mask.shape
    # Twice the grid: lags do not wrap around, and frequencies are those of the cosines.
    grid = [2 * size for size in shape]
    axes = (1, 2, 3)
    weighed = (weight * mask).astype(np.float32)
    products = np.zeros((len(weight), *grid[:2], grid[2] // 2 + 1))
    square = np.zeros(len(weight))
    for field in fields:
        rest = _rest(field, modes) * weighed
        products += np.abs(rfftn(rest, grid, axes=axes)) ** 2
        square += (rest**2).sum(axis=axes)
    overlap = irfftn(np.abs(rfftn(weighed, grid, axes=axes)) ** 2, grid, axes=axes)
    whole = overlap[:, :1, :1, :1]
    lags = irfftn(products / len(fields), grid, axes=axes)
    lags /= np.maximum(overlap, _LEAST_OVERLAP * whole)
    # What a cosine wave of this grid, which is no wave without end, collects of each lag.
    for axis, size in enumerate(shape):
        away = np.minimum(np.arange(2 * size), np.arange(2 * size, 0, -1))
        lags *= np.moveaxis((1 - away / size)[:, None, None], 0, axis)
    power = fftn(lags, axes=axes).real[:, : shape[0], : shape[1], : shape[2]]
    # A few dozen subjects leave each wave's estimate noisy; power varies smoothly.
    power = np.stack([gaussian_filter(p, _SMOOTH_BINS, mode="mirror") for p in power])
    power = np.maximum(power, _POWER_FLOOR)
    # What was cut off below must not raise the variance.
    variance = np.maximum(square / len(fields) / whole.ravel(), _POWER_FLOOR)
    scaled: NDArray[np.float64] = power * (variance / power.mean(axis=axes))[:, None, None, None]
    return scaled


def remaining(power: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
    """Variance that the Wiener filter leaves to coefficients of given power seen as a y + s eps."""
    return s**2 * power / (a**2 * power + s**2)


def spread(power: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
    """Root of the mean of `remaining` over coefficients (..., C, X, Y, Z); (..., 1, 1, 1, 1)."""
    return remaining(power, a, s).mean(dim=(-4, -3, -2, -1), keepdim=True).sqrt()


def _cosines(size: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II: (wave, place)."""
    from scipy.fft import dct

    rows: NDArray[np.float64] = dct(np.eye(size), axis=0, norm="ortho")
    return rows
