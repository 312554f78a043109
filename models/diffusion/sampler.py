"""Samplers: from noise to an image, along either path."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from models.config import SamplerName
from models.diffusion.denoiser import Estimate
from models.diffusion.path import ProbabilityPath, sampling_times
from models.prior.spectrum import SpectralBasis, posterior_sd, posterior_variance

Denoise = Callable[[Tensor, float], Estimate]
Draw = Callable[[], Tensor]
OnStep = Callable[[int, int], None]

# Nodes of the Gauss-Legendre quadrature.
_NODES = 8


class Sampler:
    """Turns noise into images by a few evaluations of a denoiser.

    Let Q x be the coefficients of the noisy image x, P their variances, and D = m + d n the
    denoiser's estimate of the clean image: m the Gaussian mean, d the Gaussian sd, n the network's
    correction. In y = Q x / q with q^2 = a^2 P + s^2, the probability flow
    dx/dt = (s'/s) x + (a' - a s'/s) D becomes

        dy = d Q n / sqrt(1 + rho^2 P) d rho,    rho = a / s.

    The Gaussian mean has dropped out: without a correction any number of steps is exact (an
    exponential integrator). The path enters only through rho: both paths are one flow in other
    coordinates. For ``ddpm`` m = P = 0 and d = 1.

    ``dpm++`` : n is extrapolated by the Adams-Bashforth rule of second order, in the time
        1 / (1 + rho) of the flow. For ``ddpm`` it is linear in log rho, which is DPM-Solver++(2M)
        (Lu et al. 2022, algorithm 2), of first order in the last step.
    ``ancestral`` : draws from the posterior of x at the next time given D (Ho et al. 2020,
        eq. 7, between any two times). Its variance is increased by the Gaussian posterior variance
        of D, coefficient by coefficient (as in Bao et al. 2022, theorem 1, for a single variance),
        so that without a correction it is exact as well.

    Parameters
    ----------
    basis : Q and P.
    steps : evaluations of the denoiser.
    """

    def __init__(
        self, name: SamplerName, path: ProbabilityPath, basis: SpectralBasis, steps: int
    ) -> None:
        self._name = name
        self._times = sampling_times(steps)
        grid = torch.tensor(self._times, dtype=torch.float64, device=basis.power.device)
        self._a: list[float]
        self._s: list[float]
        self._a, self._s = (part.tolist() for part in path(grid))
        self._gaussian = path.name == "flow"
        self._power = (
            basis.power if self._gaussian else torch.zeros_like(basis.power[:1, :1, :1, :1])
        )
        self._to_basis: Callable[[Tensor], Tensor] = basis if self._gaussian else _identity
        self._from_basis: Callable[[Tensor], Tensor] = (
            basis.inverse if self._gaussian else _identity
        )
        self._coefficients = (
            [] if name == "ancestral" else [self._coefficient(i) for i in range(steps)]
        )

    @torch.no_grad()
    def __call__(
        self,
        denoise: Denoise,
        draw: Draw,
        mask: Tensor,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draws images (B, C, X, Y, Z).

        Parameters
        ----------
        denoise : (x_t, t) -> estimate, once per step.
        draw : returns white noise (B, C, X, Y, Z); called once, and for ``ancestral`` once more per
            step.
        mask : (X, Y, Z); outside of it x_0 is zero and x_t therefore noise, as in training.
        on_step : called with (step, steps) after each step.
        """
        steps = len(self._times) - 1
        noise, inside = draw(), mask > 0
        x = torch.where(
            inside, self._from_basis(self._to_basis(noise) * self._q(0)), self._s[0] * noise
        )
        previous = torch.zeros_like(noise)
        for i in range(steps):
            estimate = denoise(x, self._times[i])
            if self._name == "ancestral":
                x = self._posterior(i, x, estimate.clean, draw(), inside)
            else:
                n = estimate.correction
                slope = n + self._extrapolation(i) * (n - previous)
                keep = self._q(i + 1) / self._q(i)
                moved = self._from_basis(
                    self._to_basis(x) * keep + self._to_basis(slope) * self._coefficients[i]
                )
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
        every = variance + (next_a * new) ** 2 * posterior_variance(self._power, a, s)
        fresh = self._from_basis(self._to_basis(z) * every.sqrt())
        return mean + torch.where(inside, fresh, math.sqrt(variance) * z)

    def _q(self, i: int) -> Tensor:
        return torch.sqrt(self._a[i] ** 2 * self._power + self._s[i] ** 2)

    def _coefficient(self, i: int) -> Tensor:
        """Returns what one unit of n adds to Q x from time i to the next."""
        if not self._gaussian:
            push = self._a[i + 1] - self._s[i + 1] * self._a[i] / self._s[i]
            return torch.full_like(self._power, push)
        power = self._power.double()
        total = torch.zeros_like(power)
        t, s = self._time(i), self._time(i + 1)
        for node, weight in zip(*np.polynomial.legendre.leggauss(_NODES), strict=True):
            middle = (t + s) / 2 + (t - s) / 2 * float(node)
            q = ((1 - middle) ** 2 * power + middle**2).sqrt()
            total += weight * (t - s) / 2 * posterior_sd(power, 1 - middle, middle) / (middle * q)
        return (total * self._q(i + 1)).float()

    def _extrapolation(self, i: int) -> float:
        """Returns the weight of the last change of n: half a step in units of the last one."""
        if i == 0:
            return 0.0
        step, last = (self._time(k + 1) - self._time(k) for k in (i, i - 1))
        ratio = step / last / 2
        return ratio if math.isfinite(ratio) else 0.0

    def _time(self, i: int) -> float:
        a, s = self._a[i], self._s[i]
        if self._gaussian:
            return float(s / (a + s))
        return math.log(a / s) if a > 0 and s > 0 else math.copysign(math.inf, a - s)


def _identity(x: Tensor) -> Tensor:
    return x
