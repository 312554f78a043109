"""Probability paths: how an image becomes noise, and what a network is asked on the way."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.config import PathConfig

_STEPS = 1000
# Times of training are kept off the ends, where some prediction has nothing left to tell.
_EDGE = 1e-3
# The flow ends in pure noise, from which no image follows; every diffusion path keeps more.
_LEAST_SIGNAL = 1e-5


class Path(nn.Module):
    """x_t = a(t) r_0 + s(t) eps, from the image at t = 0 to noise at t = 1; eps ~ N(0, 1).

    ``flow`` : rectified flow, a = 1 - t, s = t (Liu et al. 2023, eq. 1).
    ``linear``, ``scaled_linear``, ``cosine`` : probabilistic diffusion, a^2 + s^2 = 1, with the
        1000 variances of Ho et al. 2020 (section 4), of Rombach et al. 2022 (0.0015 to 0.0195,
        linear in the root) and of Nichol & Dhariwal 2021 (eq. 17). a(k / 1000)^2 is their
        alpha-bar after k steps; between steps its logarithm is linear.
    """

    log_bar: Tensor

    def __init__(self, config: PathConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("log_bar", _log_bar(config), persistent=False)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """a and s at times t, of the shape and type of t."""
        if self.config.path == "flow":
            return 1 - t, t
        place = t.double() * _STEPS
        i = place.long().clamp(0, _STEPS - 1)
        log = torch.lerp(self.log_bar[i], self.log_bar[i + 1], place - i)
        return (log / 2).exp().to(t.dtype), (-torch.expm1(log)).sqrt().to(t.dtype)

    def scales(self, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """c and k with which c x_t + k F is the clean image when F is exactly what is predicted.

        The velocity is a eps - s r_0 (Salimans & Ho 2022, appendix D) on a diffusion path and
        eps - r_0 on the flow. ``matched`` are the scalings of Karras et al. 2022, eq. 7, for
        data of variance one.
        """
        prediction = self.config.prediction
        if prediction == "x":
            return torch.zeros_like(a), torch.ones_like(a)
        if prediction == "epsilon":
            left = a.clamp(min=_LEAST_SIGNAL)
            return 1 / left, -s / left
        if prediction == "v":
            return torch.ones_like(a) if self.config.path == "flow" else a, -s
        total = a**2 + s**2
        return a / total, s / total.sqrt()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n,) times for training: logit-normal on the flow, uniform on a diffusion path."""
        if self.config.path == "flow":
            t = torch.sigmoid(torch.randn(n, generator=generator) + self.config.logit_mean)
        else:
            t = torch.rand(n, generator=generator)
        return t.clamp(_EDGE, 1 - _EDGE)

    def times(self, steps: int) -> list[float]:
        """`steps` + 1 times from 1 (noise) to 0 (image) for sampling.

        A shift above 1 spends more of the steps near the noise, where large images are decided
        (Esser et al. 2024, eq. 23).

        Raises
        ------
        ValueError : if steps < 1.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        uniform, shift = [1 - i / steps for i in range(steps + 1)], self.config.shift
        return [shift * t / (1 + (shift - 1) * t) for t in uniform]


def _log_bar(config: PathConfig) -> Tensor:
    """log alpha-bar after 0 ... 1000 steps; empty for the flow, which has a formula."""
    if config.path == "flow":
        return torch.empty(0, dtype=torch.float64)
    if config.path == "linear":
        beta = torch.linspace(1e-4, 0.02, _STEPS, dtype=torch.float64)
    elif config.path == "scaled_linear":
        beta = torch.linspace(0.0015**0.5, 0.0195**0.5, _STEPS, dtype=torch.float64) ** 2
    else:
        u = torch.linspace(0, 1, _STEPS + 1, dtype=torch.float64)
        bar = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    return torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])
