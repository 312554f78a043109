"""Probability paths: how an image becomes noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.config import PathName

_STEPS = 1000
# Training times keep away from the ends by this much: at one end nothing of the image is left, at
# the other nothing of the noise.
_EDGE = 1e-3


class ProbabilityPath(nn.Module):
    """x_t = a(t) r_0 + s(t) eps, from the image at t = 0 to noise at t = 1; eps ~ N(0, 1).

    ``flow`` : rectified flow, a = 1 - t, s = t (Liu et al. 2023, eq. 1).
    ``ddpm`` : a^2 + s^2 = 1, with the 1000 linear variances of Ho et al. 2020, section 4.
        a(k / 1000)^2 is their alpha-bar after k steps; between steps its logarithm is linear.
    """

    log_bar: Tensor

    def __init__(self, name: PathName) -> None:
        super().__init__()
        self.name = name
        beta = torch.linspace(1e-4, 0.02, _STEPS, dtype=torch.float64)
        log_bar = torch.cat([beta.new_zeros(1), torch.log1p(-beta).cumsum(0)])
        self.register_buffer("log_bar", log_bar, persistent=False)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns a and s at times t, of the shape and type of t."""
        if self.name == "flow":
            return 1 - t, t
        place = t.double() * _STEPS
        i = place.long().clamp(0, _STEPS - 1)
        log = torch.lerp(self.log_bar[i], self.log_bar[i + 1], place - i)
        return (log / 2).exp().to(t.dtype), (-torch.expm1(log)).sqrt().to(t.dtype)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws (n,) training times, uniform on both paths.

        Times that are drawn around the middle (Esser et al. 2024, eq. 19) train those better, but
        hardly the beginning of sampling: of few evaluations, the first one is at pure noise.
        """
        return torch.rand(n, generator=generator).clamp(_EDGE, 1 - _EDGE)


def sampling_times(steps: int) -> list[float]:
    """Returns `steps` + 1 even times from 1 (noise) to 0 (image).

    Raises
    ------
    ValueError : if steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [1 - i / steps for i in range(steps + 1)]
