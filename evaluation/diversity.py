"""How different the volumes of one set are from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.interval import Interval

Array = NDArray[np.float32]

# A 40-voxel side carries three scales with this window. Values depend on both: compare them only
# with values of the same setting.
KERNEL = 7
SCALES = (0.0710, 0.4530, 0.4760)  # the first three of Wang et al. 2003, made to sum to one
_BATCH = 16


def ms_ssim(images: Array, maximum: float, pairs: int, seed: int = 0) -> Interval:
    """Mean multi-scale structural similarity of random pairs of (n, X, Y, Z) images.

    High values mean that the images resemble each other: a set of copies scores 1. The interval
    is that of the mean over pairs.
    """
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    n = len(images)
    every = np.stack(np.triu_indices(n, k=1), axis=1)
    rng = np.random.default_rng(seed)
    chosen = every[rng.permutation(len(every))[:pairs]]
    metric = MultiScaleSSIMMetric(
        spatial_dims=3, data_range=maximum, kernel_size=KERNEL, weights=SCALES
    )
    values = []
    for start in range(0, len(chosen), _BATCH):
        a, b = (
            torch.from_numpy(images[chosen[start : start + _BATCH, side]][:, None])
            for side in (0, 1)
        )
        values.append(metric(a, b).flatten().numpy())
    scores = np.concatenate(values)
    half = 1.96 * float(scores.std(ddof=1)) / len(scores) ** 0.5
    mean = float(scores.mean())
    return Interval(mean, mean - half, mean + half)
