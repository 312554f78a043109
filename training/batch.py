"""What one evaluation of the loss takes: subjects, times and noise, drawn from a seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.diffusion.denoiser import Denoiser
from training.dataset import Residuals
from training.settings import LoopSettings

Batch = tuple[Tensor | None, ...]


def training_batch(
    data: Residuals,
    denoiser: Denoiser,
    settings: LoopSettings,
    step: int,
    number: int,
    device: torch.device,
) -> Batch:
    """Returns a batch of a step, see `draw`; fixed by the seed, the step and its number alone."""
    seed = settings.seed, step, number
    generator, _ = _generators(seed, device)
    chosen = torch.randint(len(data), (settings.batch,), generator=generator)
    return draw(data, chosen, denoiser, settings.slices, seed, device, settings.drop_condition)


def draw(
    data: Residuals,
    chosen: Tensor,
    denoiser: Denoiser,
    slices: int,
    seed: tuple[int, ...],
    device: torch.device,
    drop_condition: float = 0.0,
) -> Batch:
    """Returns the arguments of `models.diffusion.loss.errors` after the denoiser, on a device.

    Parameters
    ----------
    chosen : (B,), numbers of subjects.
    slices, drop_condition : see `LoopSettings`.
    """
    generator, source = _generators((*seed, 1), device)
    residual, condition = data.rows(chosen)
    noise = torch.randn(residual.shape, generator=source, device=device)
    t = denoiser.path.draw(len(chosen), generator)
    drawn_slices = None
    if denoiser.dim == "2d" and slices:
        size = (len(chosen), slices)
        drawn_slices = torch.randint(residual.shape[denoiser.axis], size, generator=generator)
    withheld = None
    if drop_condition:
        withheld = torch.rand(len(chosen), generator=generator) < drop_condition
    parts = (residual, t, noise, condition, drawn_slices, withheld)
    return tuple(None if p is None else p.to(device, non_blocking=True) for p in parts)


def _generators(
    seed: tuple[int, ...], device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Returns the random generators of a batch's choices and of its noise.

    The noise is drawn on the device: on one core of a CPU it takes as long as a GPU's step.
    """
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    generator = torch.Generator().manual_seed(number)
    if device.type == "cuda":
        return generator, torch.Generator(device).manual_seed(number)
    return generator, generator
