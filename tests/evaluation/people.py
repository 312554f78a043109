"""Smooth made-up volumes that age, for tests."""

from __future__ import annotations

import numpy as np

from contracts.condition import Condition
from contracts.maps import FA, MD
from contracts.space import Space
from evaluation.volume_set import VolumeSet

MAPS = (FA, MD)
SIDE = 32
SPACE = Space.from_affine(
    "test_res-4", (SIDE,) * 3, [[4, 0, 0, -62], [0, 4, 0, -62], [0, 0, 4, -62], [0, 0, 0, 1]]
)
LABELS = np.zeros((SIDE,) * 3, dtype=np.int32)
LABELS[6:26, 6:16, 6:26], LABELS[6:26, 16:26, 6:26] = 1, 2
REGIONS = {1: "back", 2: "front"}


def people(n: int, seed: int, fa_per_decade: float = -0.02) -> VolumeSet:
    """Brains of 22^3 voxels whose FA falls and MD rises with age; of all ages, both sexes."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    conditions = [
        Condition(float(age), "M" if rng.random() < 0.5 else "F") for age in rng.uniform(20, 80, n)
    ]
    template = gaussian_filter(np.random.default_rng(99).normal(size=(SIDE,) * 3), 3)
    template = 0.4 + 0.15 * template / template.std()
    out = np.zeros((n, 2, *(SIDE,) * 3), dtype=np.float32)
    inner = (slice(5, 27),) * 3
    for i, person in enumerate(conditions):
        own = gaussian_filter(rng.normal(size=(2, *(SIDE,) * 3)), (0, 1.5, 1.5, 1.5))
        own *= 0.05 / own.std()
        ageing = fa_per_decade * (person.age - 50) / 10
        fa = np.clip(template + own[0] + ageing, 0.01, 1)
        md = np.clip(1e-3 * (1.2 - template + own[1] - 2 * ageing), 2e-4, 3e-3)
        out[(i, 0, *inner)], out[(i, 1, *inner)] = fa[inner], md[inner]
    return VolumeSet(out, tuple(conditions), tuple(f"sub-{seed}{i:03d}" for i in range(n)))
