"""A generator's denoiser and its training data, of the right shapes but without any subjects.

Memory and time of a training depend on shapes alone, so that they can be told before there are
data.
"""

from __future__ import annotations

import numpy as np
import torch

from contracts.space import Space
from models.config import DiffusionConfig, Dim, NetworkConfig
from models.diffusion.denoiser import Denoiser
from models.prior.covariance import Covariance
from models.prior.prior import Prior
from training.dataset import Residuals

# What a prior of FA and MD has: two maps, the distance to the boundary and three axes of
# displacement; all the directions of `models.prior.directions` and four principal components.
CHANNELS = 6
MODES = 34


def denoiser(
    dim: Dim,
    space: Space,
    network: NetworkConfig,
    diffusion: DiffusionConfig | None = None,
    modes: int = MODES,
) -> Denoiser:
    """Returns a denoiser with random weights on a prior of white noise.

    Its last layer, which is zero before any training, has small weights, so that adapters take it
    for a trained one.

    Parameters
    ----------
    modes : K, rows of the spectral basis's two matrices; their values are of no account.
    """
    shape = (CHANNELS, *space.shape)
    prior = Prior(
        coefficients=_zeros(4, *shape),
        mask=np.ones(space.shape, dtype=bool),
        scale=_zeros(*shape),
        knots=_zeros(9, *shape),
        covariance=Covariance(
            power=np.ones(shape, dtype=np.float32),
            modes=np.zeros((0, *shape), dtype=np.float16),
            variance=np.zeros(0, dtype=np.float32),
        ),
        site_gain=np.ones(CHANNELS, dtype=np.float32),
    )
    made = Denoiser(dim, prior, network, (diffusion or DiffusionConfig()).path)
    # A decomposition of real modes takes more memory for a moment than some trainings do.
    for name in ("reflectors", "rotated"):
        setattr(made.basis, name, torch.full((modes, int(np.prod(shape))), 1e-6))
    with torch.no_grad():
        for parameter in made.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return made


def residuals(count: int, space: Space, entries: int = 2) -> Residuals:
    """Returns the residuals of so many made-up subjects.

    Parameters
    ----------
    entries : E, of the condition vector without position and null token.
    """
    rng = np.random.default_rng(0)
    values = rng.standard_normal((count, CHANNELS, *space.shape), dtype=np.float32)
    return Residuals(values, torch.zeros(count, entries))


def _zeros(*shape: int) -> np.ndarray:
    """Returns zeros that take no memory, for what training does not read."""
    return np.broadcast_to(np.float32(0), shape)
