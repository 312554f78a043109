"""A prior's site gain for another group, and subjects relative to its template, kept in files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cohort import row_cache
from cohort.row_cache import Array
from contracts import closure
from contracts.condition import Condition
from contracts.space import Space
from models.prior import mean_shift
from models.prior.prior import Prior

_GAIN, _RELATIVE = "site-gain", "relative"


def with_kept_gain(
    prior: Prior, encoded: Array, conditions: Sequence[Condition], folder: Path
) -> Prior:
    """Returns `prior.with_fitted_gain(encoded, conditions)`, computed once and kept in `folder`.

    The 2D and the 3D base of a cohort have the same prior, and every trial of a search starts from
    the same gain. A second process waits for the first.
    """
    from filelock import FileLock

    path = folder / f"{_GAIN}-{_digest(prior, encoded, conditions)}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, prior.with_fitted_gain(encoded, conditions).site_gain)
            partial.replace(path)
    return prior.with_gain(np.load(path))


def relative_volumes(
    prior: Prior, encoded: Array, conditions: Sequence[Condition], folder: Path
) -> Array:
    """Returns `prior.to_relative(encoded, conditions)`, computed once and kept in `folder`.

    Parameters
    ----------
    encoded : (n, C, X, Y, Z), in the channels of `cohort.channels`.

    Returns
    -------
    (n, C + 3, X, Y, Z), a memory map.
    """
    return row_cache.rows(
        folder / f"{_RELATIVE}-{_digest(prior, encoded, conditions)}.npy",
        (len(encoded), prior.channels, *prior.mask.shape),
        lambda i: prior.to_relative(encoded[i : i + 1], conditions[i : i + 1])[0],
        "register subjects",
    )


def with_fitted_shift(
    prior: Prior, relative: Array, conditions: Sequence[Condition], space: Space
) -> Prior:
    """Returns a prior with the shift of the mean of a group, see `models.prior.mean_shift`.

    Parameters
    ----------
    relative : (n, C + 3, X, Y, Z), see `relative_volumes`.
    space : the generator's grid.
    """
    unshifted = prior.with_mean_shift(None)
    mean = np.zeros(relative.shape[1:], dtype=np.float64)
    for i in range(len(relative)):
        one = relative[i : i + 1], conditions[i : i + 1]
        mean += unshifted.residual_of_relative(*one)[0] / len(relative)
    return prior.with_mean_shift(mean_shift.fit(mean.astype(np.float32), prior.mask, space))


def _digest(prior: Prior, encoded: Array, conditions: Sequence[Condition]) -> str:
    """Returns a hash of what the gain and the relative volumes depend on."""
    arrays = {
        "encoded": encoded,
        "coefficients": prior.coefficients,
        "mask": prior.mask,
        "gain": prior.site_gain,
    }
    if prior.transform is not None:
        arrays |= prior.transform.arrays()
    content = hashlib.sha256(f"{conditions} {closure.digest(__name__)}".encode())
    for name, array in sorted(arrays.items()):
        content.update(f"{name} {array.dtype} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:16]
