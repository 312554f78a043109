"""Denoising losses of a generator on given subjects, for a membership inference attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.measurement_grid import BACKGROUND_MD
from evaluation.volume_set import VolumeSet
from models.diffusion.denoiser import Denoiser, condition_vector
from models.generator import Generator
from models.prior.group import displacements

if TYPE_CHECKING:
    from torch import Tensor

Float64Array = NDArray[np.float64]

# Shares of noise, s / (a + s), at which losses are computed. With almost no noise, or with
# nothing else, a network that has memorised a brain denoises it no better than another.
_NOISE_SHARES = (0.2, 0.4, 0.6, 0.8)
_MAX_SUBJECTS = 32
# What is denoised of each volume: slices (2D), or cubes of an edge in voxels (3D).
_SLICES, _CUBES, _EDGE = 8, 2, 24
_BATCH = 2


def losses(generator: Generator, volume_set: VolumeSet, kept: Path, seed: int = 0) -> Float64Array:
    """Returns the denoising loss of each of the first 32 volumes, averaged over times; (n,).

    The noise and the times are the same for every volume, so that only the volumes differ.

    Parameters
    ----------
    kept : folder for the registered subjects, which both dimensions' generators start from.
    seed : of the noise.
    """
    import torch

    from models.diffusion.loss import errors

    n = min(len(volume_set), _MAX_SUBJECTS)
    volumes, conditions = volume_set.volumes[:n], list(volume_set.conditions[:n])
    md = [m.name for m in generator.maps].index("md")
    encoded = generator.encode(volumes, volumes[:, md] > BACKGROUND_MD)
    prior = generator.prior
    found = displacements(prior, encoded, conditions, kept)
    pairs = [
        prior.residual_and_expected(*one) for one in zip(encoded, found, conditions, strict=True)
    ]
    residual, expected = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
    condition = condition_vector(conditions, generator.sites)
    rng = np.random.default_rng(seed)
    loss = np.zeros(n)
    denoiser = generator.denoiser
    parts = torch.stack([_parts(denoiser)] * _BATCH)
    times = torch.linspace(0, 1, 1001)
    a, s = denoiser.path(times)
    denoiser.eval()
    with torch.inference_mode():
        for share in _NOISE_SHARES:
            t = times[(s / (a + s) - share).abs().argmin()].expand(_BATCH)
            noise = torch.from_numpy(
                rng.standard_normal(residual.shape[1:], dtype=np.float32)
            ).expand(_BATCH, -1, -1, -1, -1)
            for begin in range(0, n, _BATCH):
                # A last incomplete batch is filled up with its last volume, which counts once.
                rows = [min(begin + k, n - 1) for k in range(_BATCH)]
                sums = errors(
                    denoiser, residual[rows], expected[rows], t, noise, condition[rows], parts
                )
                total, count = (one.view(_BATCH, -1).sum(dim=1) for one in sums)
                mean_loss = (total / count).numpy()
                for row, value in dict(zip(rows, mean_loss, strict=True)).items():
                    loss[row] += value / len(_NOISE_SHARES)
    return loss


def _parts(denoiser: Denoiser) -> Tensor:
    """Returns what is denoised of a volume: slices of its middle half (S,), or cubes beside each
    other from front to back (K, 3, L), see `Denoiser.take`."""
    import torch

    shape = denoiser.mask.shape
    if denoiser.dim == "2d":
        depth = shape[denoiser.axis - 2]
        return torch.linspace(0.25 * depth, 0.75 * depth, _SLICES).long()
    edge = min(_EDGE, *shape)
    first = torch.tensor([(n - edge) // 2 for n in shape]).repeat(_CUBES, 1)
    first[:, 1] = torch.linspace(0, shape[1] - edge, _CUBES).long()
    cubes: Tensor = first[..., None] + torch.arange(edge)
    return cubes
