"""Priors of known covariance and denoisers on them, for tests."""

from __future__ import annotations

import numpy as np
import torch

from models.config import Dim, NetworkConfig, PathName, Plane
from models.diffusion.denoiser import Denoiser
from models.prior.covariance import Covariance
from models.prior.prior import Prior
from tests.models.fields import SHAPE

SMALL = NetworkConfig(channels=(16, 16), attention=False)


def prior_of(covariance: Covariance) -> Prior:
    """A prior without mean or mask whose residual has the given covariance."""
    shape = covariance.power.shape
    curve = np.arange(-2, 2.5, 0.5, dtype=np.float32)[:, None, None, None, None]
    return Prior(
        coefficients=np.zeros((4, *shape), dtype=np.float32),
        mask=np.ones(shape[1:], dtype=bool),
        scale=np.ones(shape, dtype=np.float32),
        knots=np.broadcast_to(curve, (9, *shape)),
        covariance=covariance,
        site_gain=np.ones(shape[0], dtype=np.float32),
    )


def denoiser_of(
    dim: Dim, covariance: Covariance, path: PathName = "flow", plane: Plane = "axial"
) -> Denoiser:
    """An untrained denoiser of a field of known covariance."""
    network = NetworkConfig(channels=(16, 16), attention=False, plane=plane)
    return Denoiser(dim, prior_of(covariance), network, path)


def randomised(denoiser: Denoiser) -> Denoiser:
    """With random weights where there were zeros, so that the network is not silent."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1, generator=rng)
    return denoiser


def noise(n: int, channels: int = 2, seed: int = 0) -> torch.Tensor:
    """White noise (n, channels, X, Y, Z)."""
    return torch.randn(n, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))
