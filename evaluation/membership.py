"""Losses of a generator on people it was trained on and on new ones, for membership inference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.cohort import Cohort
from evaluation.profile import BACKGROUND_MD
from models.diffusion.denoiser import condition_vector
from models.generator import Generator

Table = NDArray[np.float64]

# Share of noise, s / (a + s), at which a network that has learnt a brain by heart shows it best:
# neither all nor none.
_NOISE = (0.2, 0.4, 0.6, 0.8)
_MOST = 32
_SLICES = 8
_TOGETHER = 2


def losses(generator: Generator, cohort: Cohort, seed: int = 0) -> Table:
    """Denoising loss of each of the first 32 volumes, averaged over times; (n,).

    Every volume meets the same noise at the same times, so that losses differ by volume alone.
    """
    import torch

    from models.diffusion.loss import errors

    n = min(len(cohort), _MOST)
    volumes, conditions = cohort.volumes[:n], list(cohort.conditions[:n])
    md = [m.name for m in generator.maps].index("md")
    encoded = generator.encode(volumes, volumes[:, md] > BACKGROUND_MD)
    residual = torch.from_numpy(generator.prior.residual(encoded, conditions))
    condition = condition_vector(conditions, generator.sites)
    rng = np.random.default_rng(seed)
    out = np.zeros(n)
    denoiser = generator.denoiser
    depth = residual.shape[denoiser.axis]
    every = torch.linspace(0, 1, 1001)
    a, s = denoiser.path(every)
    chosen = np.linspace(0.25 * depth, 0.75 * depth, _SLICES).astype(np.int64)
    denoiser.eval()
    with torch.inference_mode():
        for share in _NOISE:
            t = every[(s / (a + s) - share).abs().argmin()].expand(_TOGETHER)
            noise = torch.from_numpy(
                rng.standard_normal(residual.shape[1:], dtype=np.float32)
            ).expand(_TOGETHER, -1, -1, -1, -1)
            for start in range(0, n, _TOGETHER):
                rows = [min(start + k, n - 1) for k in range(_TOGETHER)]
                slices = None
                if generator.dim == "2d":
                    slices = torch.from_numpy(chosen).expand(_TOGETHER, -1)
                total, count = errors(
                    denoiser, residual[rows], t, noise,
                    condition[rows], slices,
                )  # fmt: skip
                alone = (total / count).numpy()
                for row, value in dict(zip(rows, alone, strict=True)).items():
                    out[row] += value / len(_NOISE)
    return out
