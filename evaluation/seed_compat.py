"""The numbers that the source repository publishes, called by what they are.

That repository (vrajdesai17/Synthetic-Diffusion-Tensor-Imaging-DTI-Maps) scaled each MD volume to
[0, 1] by its own minimum and maximum, resized it to 64^3, and reported MS-SSIM with a window of 2
voxels and a number called MMD that is, for pairs of single images, their mean squared difference.
That scaling removes the units, so that no verdict here uses these numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.ms_ssim import pair_scores

Float32Array = NDArray[np.float32]

SIDE = 64
KERNEL = 2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003


def prepare(images: Float32Array) -> Float32Array:
    """Scales and resizes maps as that repository does.

    Parameters
    ----------
    images : (n, X, Y, Z), one map of n subjects.

    Returns
    -------
    (n, 64, 64, 64), each scaled to [0, 1].
    """
    from scipy.ndimage import zoom

    prepared = np.empty((len(images), SIDE, SIDE, SIDE), dtype=np.float32)
    for i, image in enumerate(images):
        low, high = float(image.min()), float(image.max())
        scaled = (image - low) / max(high - low, 1e-12)
        factors = [SIDE / n for n in image.shape]
        prepared[i] = zoom(scaled, factors, order=1, grid_mode=True, mode="nearest")
    return prepared


def numbers(
    synthetic: Float32Array, real: Float32Array, pairs: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Returns the mean, the standard deviation and the number of pairs of each number.

    Parameters
    ----------
    synthetic, real : (n, X, Y, Z) and (m, X, Y, Z) MD maps.
    pairs : the number of random pairs; at most all pairs of a set.
    seed : of the choice of pairs.

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
        "ms_ssim_of_synthetic_pairs (window 2, 64^3)": _summary(_similarities(made, pairs, rng)),
        "ms_ssim_of_real_pairs (window 2, 64^3)": _summary(_similarities(true, pairs, rng)),
    }


def _similarities(images: Float32Array, pairs: int, rng: np.random.Generator) -> list[float]:
    every = np.stack(np.triu_indices(len(images), k=1), axis=1)
    chosen = every[rng.permutation(len(every))[:pairs]]
    return [float(v) for v in pair_scores(images, chosen, 1.0, KERNEL, SCALES)]


def _summary(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "sd": float(np.std(values)), "pairs": len(values)}
