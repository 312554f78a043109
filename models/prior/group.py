"""What adapting fits of a prior to another group: its gain and displacements, both kept in files,
and the shift of the mean."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cohort import row_cache
from cohort.group_template import AXES
from cohort.row_cache import Array
from contracts import closure
from contracts.condition import Condition
from contracts.space import Space
from models.prior import mean_shift
from models.prior.prior import Prior

_GAIN, _DISPLACEMENTS = "site-gain", "displacements"


def with_kept_gain(
    prior: Prior, encoded: Array, conditions: Sequence[Condition], folder: Path
) -> Prior:
    """Returns `prior.with_fitted_gain(encoded, conditions)`, computed once and kept in `folder`.

    The 2D and the 3D base of a cohort have the same prior, and every trial of a search starts from
    the same gain. A second process waits for the first.

    Raises
    ------
    ValueError : if the prior has a shift of the mean: a gain is fitted to that of a base.
    """
    if prior.mean_shift is not None:
        raise ValueError("expected the prior of a base, found one with a shift of the mean")
    from filelock import FileLock

    path = folder / f"{_GAIN}-{_digest(prior, encoded, conditions)}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            partial = path.with_suffix(".partial.npy")
            np.save(partial, prior.with_fitted_gain(encoded, conditions).site_gain)
            partial.replace(path)
    return prior.with_gain(np.load(path))


def displacements(
    prior: Prior, encoded: Array, conditions: Sequence[Condition], folder: Path
) -> Array:
    """Returns `prior.register` of each volume, computed once and kept in `folder`.

    Parameters
    ----------
    encoded : (n, C, X, Y, Z), in the channels of `cohort.channels`.

    Returns
    -------
    (n, 3, X, Y, Z), a memory map.
    """
    return row_cache.rows(
        folder / f"{_DISPLACEMENTS}-{_digest(prior, encoded, conditions)}.npy",
        (len(encoded), AXES, *prior.mask.shape),
        lambda i: prior.register(encoded[i], conditions[i]),
        "register subjects",
    )


def with_fitted_shift(
    prior: Prior,
    encoded: Array,
    displacements: Array,
    conditions: Sequence[Condition],
    space: Space,
) -> Prior:
    """Returns a prior with the shift of the mean of a group, see `models.prior.mean_shift`.

    Parameters
    ----------
    encoded, displacements : (n, ...), of the group's subjects.
    space : the generator's grid.
    """
    unshifted = prior.with_mean_shift(None)
    mean = np.zeros(prior.scale.shape, dtype=np.float64)
    for one in zip(encoded, displacements, conditions, strict=True):
        mean += unshifted.residual(*one) / len(encoded)
    return prior.with_mean_shift(mean_shift.fit(mean.astype(np.float32), prior.mask, space))


def _digest(prior: Prior, encoded: Array, conditions: Sequence[Condition]) -> str:
    """Returns a hash of what the gain and the displacements depend on."""
    arrays = {
        "encoded": encoded,
        "coefficients": prior.coefficients,
        "gain": prior.site_gain,
        **prior.template.arrays(),
    }
    content = hashlib.sha256(f"{conditions} {closure.digest(__name__)}".encode())
    for name, array in sorted(arrays.items()):
        content.update(f"{name} {array.dtype} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()[:16]
