"""Deterministic samplers of the rectified-flow path x_t = (1 - t) x_0 + t eps."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
OnStep = Callable[[int, int], None]


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


@torch.no_grad()
def dpm_solver_2m(
    denoise: Denoise, noise: Tensor, grid: list[float], on_step: OnStep | None = None
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), one evaluation of `denoise` per step.

    Parameters
    ----------
    denoise : (x_t, t) -> estimate of x_0.
    noise : x at t = 1.
    grid : decreasing times from 1 to 0, as `times` gives them.
    on_step : called with (step, steps) after each step.
    """
    x = noise
    previous: Tensor | None = None
    previous_h = 0.0
    steps = len(grid) - 1
    for i, (t, s) in enumerate(pairwise(grid)):
        estimate = denoise(x, t)
        direction = estimate
        # lambda = log((1 - t) / t) is infinite at both ends: first order there, as in the paper.
        h = math.inf if t == 1 or s == 0 else _log_snr(s) - _log_snr(t)
        if previous is not None and math.isfinite(h) and math.isfinite(previous_h):
            half = h / (2 * previous_h)
            direction = (1 + half) * estimate - half * previous
        x = (s / t) * x + ((1 - s) - (1 - t) * s / t) * direction
        previous, previous_h = estimate, h
        if on_step is not None:
            on_step(i + 1, steps)
    return x


def _log_snr(t: float) -> float:
    return math.log((1 - t) / t)
