"""The source repository's numbers, under the names of what they are.

That repository (vrajdesai17/Synthetic-Diffusion-Tensor-Imaging-DTI-Maps) scaled each MD volume to
[0, 1] by its own minimum and maximum, resized it to 64^3, and reported MS-SSIM with a window of 2
voxels and a number called MMD that is, for pairs of single images, their mean squared difference.
Units are lost on the way, so that no judgement here rests on these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.ms_ssim import pair_scores

Array = NDArray[np.float32]

SIDE = 64
KERNEL = 2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003


def prepare(images: Array) -> Array:
    """(n, X, Y, Z) maps of one parameter as that repository saw them, (n, 64, 64, 64)."""
    from scipy.ndimage import zoom

    out = np.empty((len(images), SIDE, SIDE, SIDE), dtype=np.float32)
    for i, image in enumerate(images):
        low, high = float(image.min()), float(image.max())
        scaled = (image - low) / max(high - low, 1e-12)
        factors = [SIDE / n for n in image.shape]
        out[i] = zoom(scaled, factors, order=1, grid_mode=True, mode="nearest")
    return out


def numbers(synthetic: Array, real: Array, pairs: int = 200, seed: int = 0) -> dict[str, Any]:
    """Mean, standard deviation and number of random pairs of (n, X, Y, Z) MD maps.

    Raises
    ------
    ValueError : with fewer than two maps on a side.
    """
    if min(len(synthetic), len(real)) < 2:
        raise ValueError("expected at least 2 maps on each side")
    made, true = prepare(synthetic), prepare(real)
    rng = np.random.default_rng(seed)
    between = np.stack([rng.integers(len(made), size=pairs), rng.integers(len(true), size=pairs)])
    errors = [float(((made[i] - true[j]) ** 2).mean()) for i, j in between.T]
    return {
        "voxel_mse_of_synthetic_and_real (called MMD there)": _summary(errors),
        "ms_ssim_of_synthetic_pairs (window 2, 64^3)": _summary(_similar(made, pairs, rng)),
        "ms_ssim_of_real_pairs (window 2, 64^3)": _summary(_similar(true, pairs, rng)),
    }


def _similar(images: Array, pairs: int, rng: np.random.Generator) -> list[float]:
    every = np.stack(np.triu_indices(len(images), k=1), axis=1)
    chosen = every[rng.permutation(len(every))[:pairs]]
    return [float(v) for v in pair_scores(images, chosen, 1.0, KERNEL, SCALES)]


def _summary(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values)), "pairs": len(values)}
