"""The outline of sampled brains: how much it has to be smoothed to be like that of real ones.

The signed distance to the boundary is a Gaussian field in the prior. Its short waves are what the
voxel grid makes of smooth outlines, alike in all voxels that an outline crosses; as independent
waves they make ragged outlines and specks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cohort import channels
from cohort.masking import roughness
from contracts.condition import Condition
from models.prior.prior import Prior
from models.prior.spectrum import SpectralBasis

Masks = NDArray[np.bool_]

_SAMPLES = 12
_SEED = 0
# Widths that are tried, in voxels. Below 0.5 a Gaussian changes no mask.
_WIDTHS = np.arange(0.5, 1.51, 0.02)


def with_fitted_outline(prior: Prior, masks: Masks, conditions: Sequence[Condition]) -> Prior:
    """Returns a prior whose brains have outlines as smooth as those of training subjects.

    Samples of the Gaussian model are smoothed more and more, until their mean roughness
    (`cohort.masking.roughness`) is nearest to that of the training subjects. A prior without
    template stays as it is.

    Parameters
    ----------
    masks : (n, X, Y, Z), brains of the training subjects.
    conditions : (n), their ages and sexes.
    """
    if prior.transform is None:
        return prior
    aim = float(np.mean([roughness(mask) for mask in masks]))
    brains = prior.transform.brains(_sampled(prior, conditions))

    def error(sigma: float) -> float:
        found = [roughness(channels.smoothed_brain(brain, sigma)) for brain in brains]
        return abs(float(np.mean(found)) - aim)

    best = min([0.0, *_WIDTHS.tolist()], key=error)
    return replace(prior, transform=replace(prior.transform, outline_sigma=float(best)))


def _sampled(prior: Prior, conditions: Sequence[Condition]) -> NDArray[np.float32]:
    """Returns relative volumes of the Gaussian model, (12, C, X, Y, Z)."""
    basis = SpectralBasis(prior.covariance)
    rng = np.random.default_rng(_SEED)
    every = np.linspace(0, len(conditions) - 1, _SAMPLES).round().astype(int)
    chosen = [conditions[i] for i in every]
    shape = (_SAMPLES, prior.channels, *prior.mask.shape)
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    residual = basis.draw(noise).numpy() * prior.mask
    return prior.relative(residual.astype(np.float32), chosen)
