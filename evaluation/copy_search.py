"""Search for the training subject, or the pair of them, that a volume resembles most.

Volumes are compared by the individual part of their anatomy: smoothed FA, registered to the mean
of the training subjects, less that mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison import Float64Array
from evaluation.measurements import Measurements

Images = NDArray[np.floating[Any]]
IndexArray = NDArray[np.int64]

# Shifts are tried up to this many cells of 4 mm along each axis.
_MAX_SHIFT = 2
# Number of cosines along an axis of the displacements that the registration removes. Products of
# cosines whose orders sum to less than this number describe translations, and approximately
# rotations, scalings, shears and bends over half of the field of view.
_COSINES = 3
_CHUNK = 64
# Both subjects of a blend are searched among this many that a volume resembles most.
_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class BestMatch:
    """The training subjects that each of n volumes resembles most.

    Parameters
    ----------
    correlation : (n,), with the best single training subject.
    subject : (n,), row of that subject.
    pair_correlation : (n,), multiple correlation with the two training subjects that explain most
        together.
    pair : (n, 2), rows of these two.
    """

    correlation: Float64Array
    subject: IndexArray
    pair_correlation: Float64Array
    pair: IndexArray


def best_match(volumes: Measurements, train: Measurements) -> BestMatch:
    """Returns the training subject, and the two, that each volume resembles most.

    The similarity is the correlation of registered, smoothed FA less the training mean. Each
    volume and its mirror image are registered to that mean, so that a copy is found although it
    was moved: by the best of all shifts up to 8 mm along each axis and then, to first order, by
    the best smooth warp, gain and offset.
    """
    mean = train.coarse.astype(np.float32).mean(axis=0)
    nuisance = _nuisance_basis(mean)
    known = _individual_part(train.coarse, mean, nuisance)
    n = len(volumes)
    correlation, subject = np.empty(n), np.empty(n, dtype=np.int64)
    pair_correlation, pair = np.empty(n), np.empty((n, 2), dtype=np.int64)
    for begin in range(0, n, _CHUNK):
        images = volumes.coarse[begin : begin + _CHUNK]
        plain, mirrored = (
            _individual_part(i, mean, nuisance) @ known.T for i in (images, images[:, ::-1])
        )
        use_mirrored = mirrored.max(axis=1) > plain.max(axis=1)
        best = np.where(use_mirrored[:, None], mirrored, plain).astype(np.float64)
        for i, row in enumerate(best, begin):
            correlation[i], subject[i] = row.max(), row.argmax()
            candidates = np.sort(np.argsort(row)[-_CANDIDATES:])
            pair_correlation[i], two = best_pair(row[candidates], known[candidates])
            pair[i] = candidates[two]
    return BestMatch(correlation, subject, pair_correlation, pair)


def best_pair(correlation: Float64Array, images: Images) -> tuple[float, IndexArray]:
    """Returns the largest multiple correlation with two of k images, and the rows of the two.

    Parameters
    ----------
    correlation : (k,), of one volume with each image.
    images : (k, cells), centred and of length one.
    """
    between = (images @ images.T).astype(np.float64)
    unexplained = 1 - between**2
    np.fill_diagonal(unexplained, np.inf)
    # The share of variance that two regressors explain, (r1^2 + r2^2 - 2 r12 r1 r2) / (1 - r12^2).
    square = correlation**2
    product_of_two = np.outer(correlation, correlation)
    share = (square[:, None] + square - 2 * between * product_of_two) / unexplained
    two = np.array(np.unravel_index(share.argmax(), share.shape), dtype=np.int64)
    return float(np.sqrt(share.max())), two


def _nuisance_basis(mean: Images) -> Images:
    """Returns what small smooth warps, gain and offset do to an image, as an orthonormal basis.

    To first order, a displacement changes an image by its product with the image's gradient.

    Parameters
    ----------
    mean : (x, y, z).

    Returns
    -------
    (cells, k) orthonormal columns; k is 32 for 3 cosines: 30 of displacements, gain and offset.
    """
    cosines = [
        np.cos(np.pi * np.arange(_COSINES)[:, None] * (np.arange(n) + 0.5) / n) for n in mean.shape
    ]
    waves = [
        cosines[0][i][:, None, None] * cosines[1][j][:, None] * cosines[2][k]
        for i, j, k in product(range(_COSINES), repeat=3)
        if i + j + k < _COSINES
    ]
    changes = [(gradient * wave).ravel() for gradient in np.gradient(mean) for wave in waves]
    basis, _ = np.linalg.qr(np.stack([*changes, mean.ravel(), np.ones(mean.size)], axis=1))
    return basis.astype(np.float32)


def _individual_part(images: Images, mean: Images, nuisance: Images) -> Images:
    """Returns images registered to the mean, less the mean, each of length one; (n, cells).

    Parameters
    ----------
    images : (n, x, y, z).
    mean : (x, y, z).
    nuisance : (cells, k), see `_nuisance_basis`.
    """
    steps = range(-_MAX_SHIFT, _MAX_SHIFT + 1)
    shifts = list(product(steps, steps, steps))
    # Shifting the mean backwards once replaces shifting every image forwards.
    shifted_means = np.stack([np.roll(mean, [-d for d in s], axis=(0, 1, 2)) for s in shifts])
    targets = _centred(shifted_means)
    parts = np.empty((len(images), mean.size), dtype=np.float32)
    for i, image in enumerate(images):
        single = image.astype(np.float32)
        best = int((targets @ _centred(single[None])[0]).argmax())
        part = np.roll(single, shifts[best], axis=(0, 1, 2)).ravel() - mean.ravel()
        part -= nuisance @ (nuisance.T @ part)
        parts[i] = part / max(float(np.linalg.norm(part)), 1e-12)
    return parts


def _centred(images: Images) -> Images:
    """Returns each of (n, x, y, z) images less its average, of length one; (n, cells)."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: Images = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    return unit
