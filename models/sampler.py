"""The sampler: exact for the Gaussian part of a denoiser, of second order for its network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.field import Waves

Correct = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, int], None]

_NODES = 8


def times(steps: int, shift: float = 1.0) -> list[float]:
    """`steps` + 1 times from 1 (noise) to 0 (image).

    A shift above 1 spends more of the steps near the noise, where large images are decided
    (Esser et al. 2024, eq. 23).

    Raises
    ------
    ValueError : if steps < 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    uniform = [1 - i / steps for i in range(steps + 1)]
    return [shift * t / (1 + (shift - 1) * t) for t in uniform]


def spread(power: Tensor, t: Tensor) -> Tensor:
    """Standard deviation that the Wiener filter leaves at times t (B,); (B, 1, 1, 1, 1).

    The root of the mean over all coefficients of t^2 S / ((1 - t)^2 S + t^2).
    """
    time = t.view(-1, 1, 1, 1, 1)
    left = time**2 * power / ((1 - time) ** 2 * power + time**2)
    return left.mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()


class GaussianFlow:
    """The flow of x_t = (1 - t) x_0 + t eps for a field of known covariance plus a correction.

    F is the transform that makes the field's coefficients independent, S their power. With
    E[x_0 | x_t] = Wiener(x_t) + spread(t) n(x_t, t), the flow dx/dt = (x - E[x_0 | x]) / t
    becomes, in the whitened variable y = F x / q(t), q(t)^2 = (1 - t)^2 S + t^2,

        dy/dt = - spread(t) F n / (t q(t)).

    The Gaussian part has vanished: without a correction any number of steps is exact (an
    exponential integrator, as DPM-Solver is for a scalar schedule, Lu et al. 2022). The factor
    of F n is integrated by quadrature once, n by the Adams-Bashforth rule of second order.

    Parameters
    ----------
    waves : F and S.
    grid : decreasing times from 1 to 0, as `times` gives them.
    """

    def __init__(self, waves: Waves, grid: list[float]) -> None:
        self._waves, self._grid = waves, grid
        power = waves.power
        self._root = [self._q(power.double(), t).float() for t in grid]
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        self._gain = []
        for t, s in pairwise(grid):
            total = torch.zeros_like(power, dtype=torch.float64)
            for node, weight in zip(nodes, weights, strict=True):
                middle = (t + s) / 2 + (t - s) / 2 * float(node)
                left = spread(power.double(), torch.tensor([middle], dtype=torch.float64))[0]
                total += weight * (t - s) / 2 * left / (middle * self._q(power.double(), middle))
            self._gain.append(total.float())

    @staticmethod
    def _q(power: Tensor, t: float) -> Tensor:
        return ((1 - t) ** 2 * power + t**2).sqrt()

    @torch.no_grad()
    def __call__(
        self, correct: Correct, noise: Tensor, mask: Tensor, on_step: OnStep | None = None
    ) -> Tensor:
        """Carry noise (B, C, X, Y, Z) to images.

        Parameters
        ----------
        correct : (x_t, t) -> n, one network evaluation per step.
        mask : (X, Y, Z); outside of it x_0 is zero, and x_t therefore t eps, as in training.
        on_step : called with (step, steps) after each step.
        """
        x, previous = noise, torch.zeros_like(noise)
        steps = len(self._grid) - 1
        for i, (t, s) in enumerate(pairwise(self._grid)):
            n = correct(x, t)
            slope = n
            if i > 0:
                ratio = (t - s) / (self._grid[i - 1] - t)
                slope = n + ratio / 2 * (n - previous)
            white = self._waves(x) / self._root[i] + self._waves(slope) * self._gain[i]
            x = self._waves.inverse(white * self._root[i + 1])
            x = torch.where(mask > 0, x, s * noise)
            previous = n
            if on_step is not None:
                on_step(i + 1, steps)
        return x
