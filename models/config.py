"""Settings that a user chooses: size of the network, path and sampler. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dim = Literal["2d", "3d"]
Plane = Literal["sagittal", "coronal", "axial"]
PathName = Literal["flow", "ddpm"]
SamplerName = Literal["dpm++", "ancestral"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Size of the network.

    Parameters
    ----------
    channels : per level, multiples of 16 (others fall off the fast convolution path on CPUs).
    res_blocks : residual blocks per level.
    attention : self-attention at the last level; the block in the middle always has it.
    plane : 2D only: the slices that the network sees.
    """

    channels: tuple[int, ...] = (16, 32, 64)
    res_blocks: int = 1
    attention: bool = False
    plane: Plane = "axial"


@dataclass(frozen=True, slots=True)
class DiffusionConfig:
    """How images become noise in training and noise becomes images in sampling.

    Parameters
    ----------
    path : ``flow``: rectified flow (flow matching), starting from the closed-form Gaussian model;
        ``ddpm``: denoising diffusion as Ho et al. 2020 have it (linear variances, the network
        predicts the noise), without that start.
    sampler : ``dpm++``: an exponential integrator of second order, for few steps;
        ``ancestral``: DDPM's own stochastic sampler, for 1000 steps. See
        `models.diffusion.sampler.Sampler`.
    """

    path: PathName = "flow"
    sampler: SamplerName = "dpm++"
