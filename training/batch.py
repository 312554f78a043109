"""What one evaluation of the loss takes: subjects, times and noise, drawn from a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.diffusion.denoiser import Denoiser
from training.dataset import TrainingImages
from training.settings import LoopSettings

Batch = tuple[Tensor | None, ...]


def training_batch(
    data: TrainingImages,
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
    return draw(data, chosen, denoiser, settings, seed, device, settings.drop_condition)


def draw(
    data: TrainingImages,
    chosen: Tensor,
    denoiser: Denoiser,
    settings: LoopSettings,
    seed: tuple[int, ...],
    device: torch.device,
    drop_condition: float = 0.0,
) -> Batch:
    """Returns the arguments of `models.diffusion.loss.errors` after the denoiser, on a device.

    Parameters
    ----------
    chosen : (B,), numbers of subjects.
    settings : what is cut from each volume, see `LoopSettings`.
    drop_condition : share of volumes whose condition is withheld.
    """
    generator, source = _generators((*seed, 1), device)
    residual, expected, condition = data.rows(chosen)
    noise = torch.randn(residual.shape, generator=source, device=device)
    t = denoiser.path.draw(len(chosen), generator)
    parts = None
    if denoiser.dim == "2d" and settings.slices:
        size = (len(chosen), settings.slices)
        parts = torch.randint(residual.shape[denoiser.axis], size, generator=generator)
    elif denoiser.dim == "3d" and settings.cubes:
        parts = _cubes(denoiser.mask, len(chosen), settings, generator)
    withheld = None
    if drop_condition:
        withheld = torch.rand(len(chosen), generator=generator) < drop_condition
    batch = (residual, expected, t, noise, condition, parts, withheld)
    return tuple(None if p is None else p.to(device, non_blocking=True) for p in batch)


def together(batches: Sequence[Batch]) -> Batch:
    """Returns batches as one; each part is there in all of them, or in none."""
    return tuple(
        None if parts[0] is None else torch.cat([p for p in parts if p is not None])
        for parts in zip(*batches, strict=True)
    )


def _cubes(mask: Tensor, count: int, settings: LoopSettings, generator: torch.Generator) -> Tensor:
    """Returns the voxels of cubes around random voxels of a mask (X, Y, Z), inside the grid;
    (count, cubes, 3, edge)."""
    edge = min(settings.cube_edge, *mask.shape)
    inside = mask.cpu().nonzero()
    size = (count, settings.cubes)
    centre = inside[torch.randint(len(inside), size, generator=generator)]
    last = torch.tensor(mask.shape) - edge
    first = (centre - edge // 2).clamp(min=0).minimum(last)
    cubes: Tensor = first[..., None] + torch.arange(edge)
    return cubes


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
