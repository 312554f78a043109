"""Priors of known covariance and denoisers on them, for tests."""

from __future__ import annotations

import numpy as np
import torch

from cohort.group_template import AXES, GroupTemplate
from cohort.template_estimator import FINER
from models.config import Dim, NetworkConfig, PathName, Plane
from models.diffusion.denoiser import Denoiser
from models.prior.covariance import Covariance
from models.prior.prior import Prior
from tests.models.fields import SHAPE, flat

SMALL = NetworkConfig(channels=(16, 16), attention=False)


def prior_of(covariance: Covariance) -> Prior:
    """A prior without mean or mask whose maps have residuals of the given covariance."""
    count, *shape = covariance.power.shape
    template = GroupTemplate(
        image=np.zeros((count + 1, *(FINER * (n - 1) + 1 for n in shape)), dtype=np.float32),
        effects=np.zeros((4, count + 1, *shape), dtype=np.float32),
        centre=np.zeros(4, dtype=np.float32),
        inverse_sd=np.ones((count + 1, *shape), dtype=np.float32),
        mask=np.ones(shape, dtype=bool),
        sigma=1.0,
    )
    channels = count + 1 + AXES
    return Prior(
        template=template,
        coefficients=np.zeros((4, channels, *shape), dtype=np.float32),
        scale=np.ones((channels, *shape), dtype=np.float32),
        map_covariance=covariance,
        shape_field=flat(1 + AXES, tuple(shape)),
        site_gain=np.ones(count + 1, dtype=np.float32),
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


def expected_of(n: int, channels: int = 2, seed: int = 9) -> torch.Tensor:
    """What is expected of n brains, (n, channels + 1, X, Y, Z): any numbers, so that about half of
    the voxels have a positive distance and are brain."""
    return noise(n, channels + 1, seed)


def noise(n: int, channels: int = 2, seed: int = 0) -> torch.Tensor:
    """White noise (n, channels, X, Y, Z)."""
    return torch.randn(n, channels, *SHAPE, generator=torch.Generator().manual_seed(seed))
