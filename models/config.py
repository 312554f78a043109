"""What a generator is built from, in plain values; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dim = Literal["2d", "3d"]
Plane = Literal["sagittal", "coronal", "axial"]
PathName = Literal["flow", "linear", "scaled_linear", "cosine"]
Prediction = Literal["matched", "x", "epsilon", "v"]
Start = Literal["gaussian", "none"]
SamplerName = Literal["dpm++", "ddim", "ancestral"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Size of the network.

    Parameters
    ----------
    channels : per level, multiples of 16 (others fall off the fast convolution path on CPUs).
    res_blocks : residual blocks per level.
    attention : self-attention at the last level.
    patch : edge of the space-to-depth patches; 2 makes every step about three times cheaper.
    plane : 2D only: the slices that the network sees.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    res_blocks: int = 1
    attention: bool = True
    patch: int = 2
    plane: Plane = "axial"


@dataclass(frozen=True, slots=True)
class LatentConfig:
    """Size of the autoencoder whose latents a 3D network may see in place of voxels.

    Parameters
    ----------
    channels : per level, multiples of 16; each level after the first halves the grid.
    latents : channels of the latents.
    res_blocks : residual blocks per level.
    patch : edge of the space-to-depth patches before the first level.
    """

    channels: tuple[int, ...] = (64,)
    latents: int = 64
    res_blocks: int = 1
    patch: int = 4

    @property
    def edge(self) -> int:
        """Voxels along the edge of a latent's cell."""
        return int(self.patch * 2 ** (len(self.channels) - 1))


@dataclass(frozen=True, slots=True)
class PathConfig:
    """How images become noise in training and noise becomes images in sampling.

    ``path: cosine, prediction: epsilon, start: none, sampler: ancestral`` is plain DDPM.

    Parameters
    ----------
    path : see `models.path.Path`.
    prediction : what the network's output is scaled to, and so what its loss weighs: the clean
        image, the noise, the velocity, or (``matched``) the clean image in units of the standard
        deviation that the start leaves to it.
    start : what the output is added to: the closed-form Gaussian estimate, so that an output of
        zero is the Gaussian model; or nothing but the noisy image itself.
    sampler : see `models.sampler.Sampler`.
    logit_mean : flow only: mean of logit(t) in training; above 0 trains more on noisy images
        (Esser et al. 2024, eq. 19).
    shift : see `models.path.Path.times`.
    """

    path: PathName = "flow"
    prediction: Prediction = "matched"
    start: Start = "gaussian"
    sampler: SamplerName = "dpm++"
    logit_mean: float = 0.0
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.shift <= 0:
            raise ValueError(f"expected shift > 0, found {self.shift}")

    @property
    def unbounded(self) -> bool:
        """Whether a small error of the network may be a huge one of the image: near the noise,
        where the output is divided by the signal or nothing else is known."""
        return self.prediction == "epsilon" or self.start == "none"
