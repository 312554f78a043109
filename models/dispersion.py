"""How much shapes have to vary for the maps to vary as those of real people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from contracts.condition import Condition
from models import representation
from models.field import Waves
from models.frame import AXES
from models.gaussian import Array, design
from models.prior import Prior
from models.warp import smooth

# Volumes drawn at each of two scales; between them the logarithm of the variance is a line.
_DRAWS = 48
_TRIED = (1.0, 1.3)
_LEAST, _MOST = 1.0, 1.5
_LEAST_SLOPE = 1e-3
# Of the subjects have brain where it is looked at: beyond it there are no maps.
_COMMON = 0.95
# Voxels; noise of single voxels is not a matter of shape.
_WIDTH = 1.0
_SEED = 0


def dispersed(
    prior: Prior, volumes: Sequence[Array] | Array, conditions: Sequence[Condition]
) -> Prior:
    """A prior whose displacements are scaled so that maps vary as in its training subjects.

    Registration that is kept smooth finds a displacement too small, and leaves the rest of it in
    what it cannot explain; drawn apart, the two no longer add up. The factor is the one that
    brings back the variance of the maps, smoothed over a voxel, beyond age and sex.

    Parameters
    ----------
    volumes : encoded (n, C, X, Y, Z) training volumes, read once.

    Raises
    ------
    ValueError : if the prior has no frame.
    """
    if prior.frame is None:
        raise ValueError("expected a prior with a frame")
    people = [conditions[i % len(conditions)] for i in range(_DRAWS)]
    waves = Waves(prior.covariance)
    root = waves.power.sqrt()

    def drawn(tried: Prior) -> Callable[[int], Array]:
        def one(i: int) -> Array:
            noise = np.random.default_rng((_SEED, i)).standard_normal(root.shape, dtype=np.float32)
            with torch.inference_mode():
                field = waves.inverse((torch.from_numpy(noise) * root)[None]).numpy()
            made: Array = tried.volume(field * prior.mask, people[i : i + 1])[0]
            return made

        return one

    inside = np.mean([representation.brain(volume) for volume in volumes], axis=0) >= _COMMON
    sites = prior.sites
    real = _variance(lambda i: volumes[i], conditions, sites, inside)
    found = [_variance(drawn(_scaled(prior, k)), people, sites, inside) for k in _TRIED]
    low, high = (float(np.log(v / real).mean()) for v in found)
    slope = (high - low) / np.log(_TRIED[1] / _TRIED[0])
    # Where shapes hardly change the maps, no factor brings anything back.
    wanted = -low / slope if slope > _LEAST_SLOPE else 0.0
    return _scaled(prior, float(np.exp(np.clip(wanted, np.log(_LEAST), np.log(_MOST)))))


def _scaled(prior: Prior, factor: float) -> Prior:
    scale = prior.scale.copy()
    scale[-AXES:] *= np.float32(factor)
    return replace(prior, scale=scale, stretch=factor * prior.stretch)


def _variance(
    volume: Callable[[int], Array],
    conditions: Sequence[Condition],
    sites: Sequence[str],
    mask: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Mean variance of each smoothed map in the mask, (C - 1,), beyond age and sex."""
    rows = design(conditions, sites)
    inverse = np.linalg.pinv(rows)
    kept = []
    for i in range(len(rows)):
        maps = torch.from_numpy(np.array(volume(i)[:-1]))
        kept.append(smooth(maps, _WIDTH).numpy()[:, mask])
    values = np.stack(kept)
    left = values - np.einsum("np,pcv->ncv", rows, np.einsum("pn,ncv->pcv", inverse, values))
    freedom = max(len(rows) - np.linalg.matrix_rank(rows), 1)
    out: NDArray[np.float64] = np.square(left, dtype=np.float64).sum(axis=0).mean(axis=1) / freedom
    return out
