"""Denoising losses of a generator on given subjects, for a membership inference attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evaluation.measurement_grid import BACKGROUND_MD
from evaluation.volume_set import VolumeSet
from models.diffusion.denoiser import condition_vector
from models.generator import Generator
from models.prior.group import relative_volumes

Float64Array = NDArray[np.float64]

# Shares of noise, s / (a + s), at which losses are computed. With almost no noise, or with
# nothing else, a network that has memorised a brain denoises it no better than another.
_NOISE_SHARES = (0.2, 0.4, 0.6, 0.8)
_MAX_SUBJECTS = 32
_SLICES = 8
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
    relative = relative_volumes(generator.prior, encoded, conditions, kept)
    residual = torch.from_numpy(generator.prior.residual_of_relative(relative, conditions))
    condition = condition_vector(conditions, generator.sites)
    rng = np.random.default_rng(seed)
    loss = np.zeros(n)
    denoiser = generator.denoiser
    depth = residual.shape[denoiser.axis]
    times = torch.linspace(0, 1, 1001)
    a, s = denoiser.path(times)
    middle = np.linspace(0.25 * depth, 0.75 * depth, _SLICES).astype(np.int64)
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
                slices = None
                if generator.dim == "2d":
                    slices = torch.from_numpy(middle).expand(_BATCH, -1)
                total, count = errors(
                    denoiser, residual[rows], t, noise,
                    condition[rows], slices,
                )  # fmt: skip
                mean_loss = (total / count).numpy()
                for row, value in dict(zip(rows, mean_loss, strict=True)).items():
                    loss[row] += value / len(_NOISE_SHARES)
    return loss
