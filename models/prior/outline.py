"""The outline of drawn brains: how much it has to be smoothed to be like that of real ones.

The signed distance to the boundary is a Gaussian field in the prior. Its short waves are what the
voxel grid makes of smooth outlines, alike in all voxels that an outline crosses; as independent
waves they make ragged outlines and specks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cohort import channels
from cohort.masking import roughness
from cohort.threads import each
from contracts.condition import Condition
from models.prior.prior import Prior

Masks = NDArray[np.bool_]

_SAMPLES = 12
_SEED = 0
# The widths between which is searched, in voxels, and the number of halvings. A Gaussian of the
# least width changes no mask; one wider than the largest takes off more than raggedness.
_WIDTHS, _HALVINGS = (0.4, 1.2), 8


def with_fitted_outline(prior: Prior, masks: Masks, conditions: Sequence[Condition]) -> Prior:
    """Returns a prior whose brains have outlines as smooth as those of training subjects.

    The width is that at which the mean roughness (`cohort.masking.roughness`) of drawn brains is
    that of the training subjects, found by bisection. A prior whose brains are not rougher stays
    as it is.

    Parameters
    ----------
    masks : (n, X, Y, Z), brains of the training subjects.
    conditions : (n), their ages and sexes.
    """
    aim = float(np.mean([roughness(mask) for mask in masks]))
    brains = _drawn(prior, conditions)

    def found(sigma: float) -> float:
        smooth = each(lambda i: channels.smoothed_brain(brains[i], sigma), len(brains))
        return float(np.mean([roughness(brain) for brain in smooth]))

    if found(0.0) <= aim:
        return prior
    # Roughness falls with the width.
    low, high = _WIDTHS
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) > aim else (low, middle)
    return replace(prior, outline_sigma=(low + high) / 2)


def _drawn(prior: Prior, conditions: Sequence[Condition]) -> Masks:
    """Returns brains as the Gaussian field makes them, (12, X, Y, Z)."""
    rng = np.random.default_rng(_SEED)
    every = np.linspace(0, len(conditions) - 1, _SAMPLES).round().astype(int)
    chosen = [conditions[i] for i in every]
    noise = rng.standard_normal((_SAMPLES, *prior.shape_field.noise_shape), dtype=np.float32)
    brains: Masks = prior.unsmoothed_shapes(noise, chosen)[:, 0] > 0
    return brains
