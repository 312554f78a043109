"""Samplers: from noise to an image, along any path, for any prediction."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.config import SamplerName
from models.denoiser import Estimate
from models.field import Waves, remaining, spread
from models.path import Path

Denoise = Callable[[Tensor, float], Estimate]
Draw = Callable[[], Tensor]
OnStep = Callable[[int, int], None]

_NODES = 8


class Sampler:
    """Carries noise to images by a few calls of a denoiser.

    In the coefficients F x of the field, of power S, let D = K + u n be the denoiser's estimate:
    K what is known in closed form (the Wiener filter of a Gaussian start, or nothing), u its
    unit, n what the network adds. In y = F x / q, q^2 = a^2 S + s^2, the probability flow
    dx/dt = (s'/s) x + (a' - a s'/s) D becomes

        dy = u F n / sqrt(1 + rho^2 S) d rho,    rho = a / s.

    K has vanished: without a correction any number of steps is exact (an exponential integrator).
    The path is left in rho alone: all paths are one flow in other coordinates.

    ``dpm++`` : n by the Adams-Bashforth rule of second order. Without a Gaussian start K = S = 0
        and this is DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), of first order in the last
        step; there n is linear in log rho, with the start in the time of the flow, 1 / (1 + rho).
    ``ddim`` : n constant; without a Gaussian start, Song et al. 2021, eq. 12, with sigma = 0.
    ``ancestral`` : draws from the posterior of x at the next time given D (Ho et al. 2020,
        eq. 7, between any two times). To its variance comes what the Gaussian start leaves to
        D, coefficient by coefficient (as in Bao et al. 2022, theorem 1, for a single variance),
        so that without a correction it is exact as well.

    Parameters
    ----------
    waves : F and S.
    steps : calls of the denoiser.
    """

    def __init__(self, name: SamplerName, path: Path, waves: Waves, steps: int) -> None:
        self._name = name
        self._times = path.times(steps)
        grid = torch.tensor(self._times, dtype=torch.float64, device=waves.power.device)
        self._a: list[float]
        self._s: list[float]
        self._a, self._s = (part.tolist() for part in path(grid))
        self._gaussian = path.config.start == "gaussian"
        self._power = (
            waves.power if self._gaussian else torch.zeros_like(waves.power[:1, :1, :1, :1])
        )
        self._to: Callable[[Tensor], Tensor] = waves if self._gaussian else _same
        self._back: Callable[[Tensor], Tensor] = waves.inverse if self._gaussian else _same
        self._push = [] if name == "ancestral" else [self._gain(i) for i in range(steps)]

    @torch.no_grad()
    def __call__(
        self, denoise: Denoise, draw: Draw, mask: Tensor, on_step: OnStep | None = None
    ) -> Tensor:
        """Draw images (B, C, X, Y, Z).

        Parameters
        ----------
        denoise : (x_t, t) -> estimate, once per step.
        draw : gives white noise (B, C, X, Y, Z): once, and for ``ancestral`` once more per step.
        mask : (X, Y, Z); outside of it x_0 is zero and x_t therefore noise, as in training.
        on_step : called with (step, steps) after each step.
        """
        steps = len(self._times) - 1
        noise, inside = draw(), mask > 0
        x = torch.where(inside, self._back(self._to(noise) * self._q(0)), self._s[0] * noise)
        previous = torch.zeros_like(noise)
        for i in range(steps):
            estimate = denoise(x, self._times[i])
            if self._name == "ancestral":
                x = self._posterior(i, x, estimate.clean, draw(), inside)
            else:
                n = estimate.correction
                slope = n + self._ahead(i) * (n - previous)
                keep = self._q(i + 1) / self._q(i)
                moved = self._back(self._to(x) * keep + self._to(slope) * self._push[i])
                x = torch.where(inside, moved, x * (self._s[i + 1] / self._s[i]))
                previous = n
            if on_step is not None:
                on_step(i + 1, steps)
        return x

    def _posterior(self, i: int, x: Tensor, clean: Tensor, z: Tensor, inside: Tensor) -> Tensor:
        a, s, next_a, next_s = self._a[i], self._s[i], self._a[i + 1], self._s[i + 1]
        new = 1 - (next_s * a / (next_a * s)) ** 2
        mean = next_s**2 * a / (next_a * s**2) * x + next_a * new * clean
        variance = next_s**2 * new
        every = variance + (next_a * new) ** 2 * remaining(self._power, a, s)
        fresh = self._back(self._to(z) * every.sqrt())
        return mean + torch.where(inside, fresh, math.sqrt(variance) * z)

    def _q(self, i: int) -> Tensor:
        return torch.sqrt(self._a[i] ** 2 * self._power + self._s[i] ** 2)

    def _gain(self, i: int) -> Tensor:
        """What one unit of n adds to F x from time i to the next."""
        if not self._gaussian:
            push = self._a[i + 1] - self._s[i + 1] * self._a[i] / self._s[i]
            return torch.full_like(self._power, push)
        power = self._power.double()
        total = torch.zeros_like(power)
        t, s = self._clock(i), self._clock(i + 1)
        for node, weight in zip(*np.polynomial.legendre.leggauss(_NODES), strict=True):
            middle = (t + s) / 2 + (t - s) / 2 * float(node)
            q = ((1 - middle) ** 2 * power + middle**2).sqrt()
            total += weight * (t - s) / 2 * spread(power, 1 - middle, middle) / (middle * q)
        return (total * self._q(i + 1)).float()

    def _ahead(self, i: int) -> float:
        """Weight of the last change of n: half a step in units of the last one."""
        if self._name == "ddim" or i == 0:
            return 0.0
        step, last = (self._clock(k + 1) - self._clock(k) for k in (i, i - 1))
        ratio = step / last / 2
        return ratio if math.isfinite(ratio) else 0.0

    def _clock(self, i: int) -> float:
        a, s = self._a[i], self._s[i]
        if self._gaussian:
            return float(s / (a + s))
        return math.log(a / s) if a > 0 and s > 0 else math.copysign(math.inf, a - s)


def _same(x: Tensor) -> Tensor:
    return x
