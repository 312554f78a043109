"""What a generator is built from, in plain values; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Dim = Literal["2d", "3d"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Size of the network.

    Parameters
    ----------
    channels : per level, multiples of 16 (others fall off the fast convolution path on CPUs).
    res_blocks : residual blocks per level.
    attention : self-attention at the last level.
    patch : edge of the space-to-depth patches; 2 makes every step about three times cheaper.
    """

    channels: tuple[int, ...] = (32, 64, 128)
    res_blocks: int = 1
    attention: bool = True
    patch: int = 2


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """How times are drawn in training and spaced in sampling.

    Parameters
    ----------
    logit_mean : mean of logit(t); above 0 trains more on noisy images (Esser et al. 2024, eq. 19).
    shift : see `models.sampler.times`.
    """

    logit_mean: float = 0.0
    shift: float = 1.0
