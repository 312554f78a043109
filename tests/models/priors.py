"""Priors of known covariance and denoisers on them, for tests."""

from __future__ import annotations

import numpy as np
import torch
from models.denoiser import Denoiser
from models.field import Covariance

from models.config import Dim, NetworkConfig, PathConfig, Plane
from models.prior import Prior
from tests.models.fields import SHAPE

SMALL = NetworkConfig(channels=(16, 16), attention=False)


def prior_of(covariance: Covariance) -> Prior:
    """A prior without mean or mask whose residual has the given covariance."""
    return Prior(
        coefficients=np.zeros((4, 2, *SHAPE), dtype=np.float32),
        mask=np.ones(SHAPE, dtype=bool),
        scale=np.ones((2, *SHAPE), dtype=np.float32),
        knots=np.broadcast_to(
            np.arange(-2, 2.5, 0.5, dtype=np.float32)[:, None, None, None, None], (9, 2, *SHAPE)
        ),
        covariance=covariance,
        sd=np.ones((2, *SHAPE), dtype=np.float32),
        gain=np.ones(2, dtype=np.float32),
        centre=np.array([1, 0, 0, 0], dtype=np.float32),
    )


def denoiser_of(
    dim: Dim,
    covariance: Covariance,
    path: PathConfig | None = None,
    plane: Plane = "axial",
) -> Denoiser:
    """An untrained denoiser of a field of known covariance."""
    network = NetworkConfig(channels=(16, 16), attention=False, plane=plane)
    return Denoiser(dim, prior_of(covariance), network, path or PathConfig())


def randomised(denoiser: Denoiser) -> Denoiser:
    """With random weights where there were zeros, so that the network is not silent."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1, generator=rng)
    return denoiser
