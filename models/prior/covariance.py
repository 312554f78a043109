"""The covariance of a Gaussian field: stationary, but for a few modes that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.regression import Array
from models.prior.stationary import autocorrelation

# Width of the smoothing of the power spectrum, in waves.
_SMOOTH_BINS = 1.0
# Where nothing varies (all masks alike, say) there is no power, and no ratio to it either.
_POWER_FLOOR = 1e-3
# Principal components are kept as modes where they hold in other subjects: at most so many, each of
# which explains at least this share of what it explains in the subjects that it was made from.
_MAX_COMPONENTS = 4
_LEAST_HELD_OUT_SHARE = 0.4
_FOLDS = 5
# More subjects than this say little more about what subjects have in common.
_MOST_SUBJECTS = 300
# Bytes of the fields that are multiplied with others at a time.
_BLOCK_BYTES = 256 * 2**20


class LazyRows(Sequence[Array]):
    """Rows that are computed when they are read."""

    def __init__(self, row: Callable[[int], Array], count: int) -> None:
        self._row, self._count = row, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        return self._row(range(self._count)[i])


@dataclass(frozen=True, slots=True)
class Covariance:
    """The covariance of a field: a few modes of known variance, and a stationary rest.

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
    ) -> Covariance:
        """Estimates the covariance from fields that are zero outside a mask.

        The modes are the principal components that hold in other subjects. The autocorrelation of
        the rest is averaged over all places where both ends of a lag lie in the mask, so that the
        extent of the mask does not matter.

        Parameters
        ----------
        fields : n fields (C, X, Y, Z).
        mask : (X, Y, Z).
        weight : (C, X, Y, Z), how much a place counts.
        """
        modes, variance = _shared_components(fields)
        power = stationary_power(fields, mask, weight, modes)
        shape = (len(modes), *power.shape)
        return cls(
            power.astype(np.float32),
            modes.reshape(shape).astype(np.float16),
            variance.astype(np.float32),
        )


def _shared_components(
    fields: Sequence[Array] | Array,
) -> tuple[Array, NDArray[np.float64]]:
    """Returns the principal components that hold in other subjects, (K, N), and the variances that
    they have there, by five-fold cross-validation."""
    n, size = min(len(fields), _MOST_SUBJECTS), fields[0].size
    if n < 4 * _FOLDS:
        return np.zeros((0, size), dtype=np.float32), np.zeros(0)

    def row(i: int) -> Array:
        return np.asarray(fields[i]).ravel()

    gram = _products(row, n, max(_BLOCK_BYTES // (4 * size), 1))
    held = np.zeros((n, _MAX_COMPONENTS))
    for fold in range(_FOLDS):
        new = np.arange(n) % _FOLDS == fold
        _, vectors = _components(gram[np.ix_(~new, ~new)])
        held[new] = (gram[np.ix_(new, ~new)] @ vectors) ** 2
    values, vectors = _components(gram)
    variance = held.mean(axis=0)
    holds = variance >= _LEAST_HELD_OUT_SHARE * values / n
    count = _MAX_COMPONENTS if holds.all() else int(holds.argmin())
    components = np.zeros((count, size), dtype=np.float32)
    for i in range(n if count else 0):
        components += np.outer(vectors[i, :count].astype(np.float32), row(i))
    return components, variance[:count]


def _products(row: Callable[[int], Array], n: int, together: int) -> NDArray[np.float64]:
    """Returns the Gram matrix (n, n) of n rows, of which so many are held in memory."""
    gram = np.zeros((n, n))
    for first in range(0, n, together):
        held = np.stack([row(i) for i in range(first, min(first + together, n))])
        last = first + len(held)
        gram[first:last, first:last] = held @ held.T
        for i in range(last, n):
            gram[i, first:last] = gram[first:last, i] = held @ row(i)
    return gram


def _components(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the largest eigenvalues of a Gram matrix, and the weights of its rows whose sums are
    principal components of length 1."""
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values[::-1][:_MAX_COMPONENTS], 1e-12)
    return values, vectors[:, ::-1][:, :_MAX_COMPONENTS] / np.sqrt(values)


def _project_out(field: Array, modes: Array) -> Array:
    """Returns a field less its projection on orthonormal modes."""
    flat = field.ravel()
    return np.asarray(flat - (modes @ flat) @ modes, dtype=np.float32).reshape(field.shape)


def stationary_power(
    fields: Sequence[Array] | Array,
    mask: NDArray[np.bool_],
    weight: Array,
    modes: Array,
) -> NDArray[np.float64]:
    """Returns the variance (C, X, Y, Z) of each cosine wave in what modes leave of the fields.

    It is the spectrum of their weighted autocorrelation.

    Parameters
    ----------
    fields, mask, weight : as in `Covariance.fit`.
    modes : (K, C * X * Y * Z), orthonormal.
    """
    from scipy.fft import fftn
    from scipy.ndimage import gaussian_filter

    shape, axes = mask.shape, (1, 2, 3)
    rest = LazyRows(lambda i: _project_out(fields[i], modes), len(fields))
    lags, variance = autocorrelation(rest, mask, weight)
    # A cosine wave ends with the grid, so that it collects less of a longer lag.
    for axis, size in enumerate(shape):
        away = np.minimum(np.arange(2 * size), np.arange(2 * size, 0, -1))
        lags *= np.moveaxis((1 - away / size)[:, None, None], 0, axis)
    power = fftn(lags, axes=axes).real[:, : shape[0], : shape[1], : shape[2]]
    # A few dozen subjects leave each wave's estimate noisy; power varies smoothly.
    power = np.stack([gaussian_filter(p, _SMOOTH_BINS, mode="mirror") for p in power])
    power = np.maximum(power, _POWER_FLOOR)
    # The floor must not raise the variance.
    variance = np.maximum(variance, _POWER_FLOOR)
    scaled: NDArray[np.float64] = power * (variance / power.mean(axis=axes))[:, None, None, None]
    return scaled
