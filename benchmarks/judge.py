"""How fast the judge is: `python -m benchmarks.judge`, part of `make bench`.

The judge is the audit of `evaluation`. Its MS-SSIM is measured against MONAI's metric called pair
by pair, interleaved in one run; whole audits of up to 500 against 500 volumes of 40 x 48 x 40
voxels in wall seconds and memory.
"""

from __future__ import annotations

import os
import resource
import time

import click
import numpy as np

from benchmarks import result
from contracts.console import command, progress
from contracts.maps import MAPS
from contracts.space import mni_space
from evaluation.audit import Auditor
from evaluation.measured_set import MeasuredSet
from evaluation.ms_ssim import KERNEL, SCALES, SIGMA, pair_matrix
from evaluation.volume_set import VolumeSet

_ROUNDS = 5
_PAIRS = 8
_VOLUMES = (125, 250, 500)


def volumes(n: int, seed: int) -> VolumeSet:
    """Smooth random brains of the working space."""
    from scipy.ndimage import gaussian_filter

    from contracts.condition import Condition

    rng = np.random.default_rng(seed)
    shape = mni_space(4).shape
    grid = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, s) for s in shape], indexing="ij"))
    inside = (grid**2).sum(axis=0) < 1
    out = np.zeros((n, 2, *shape), dtype=np.float32)
    for i in range(n):
        own = gaussian_filter(rng.standard_normal((2, *shape), dtype=np.float32), (0, 2, 2, 2))
        out[i, 0] = np.where(inside, np.clip(0.35 + own[0], 0.01, 1), 0)
        out[i, 1] = np.where(inside, np.clip(0.9e-3 + 1e-3 * own[1], 1e-4, 3e-3), 0)
    people = [
        Condition(float(a), "F" if i % 2 else "M") for i, a in enumerate(rng.uniform(18, 88, n))
    ]
    return VolumeSet(out, people)


def similarity() -> result.Row:
    """Pairs per second, and MONAI's time over ours, rounds interleaved."""
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    images = volumes(24, 0).volumes[:, 0]
    metric = MultiScaleSSIMMetric(
        3, data_range=1.0, kernel_size=KERNEL, kernel_sigma=SIGMA, weights=SCALES
    )
    ratios, rates, worst = [], [], 0.0
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        found = pair_matrix(images, 1.0)
        ours = (time.perf_counter() - begun) / (24 * 23 / 2)
        begun = time.perf_counter()
        theirs = [
            float(metric(*(torch.from_numpy(images[k][None, None]) for k in (0, j))))
            for j in range(1, 1 + _PAIRS)
        ]
        monai = (time.perf_counter() - begun) / _PAIRS
        worst = max(worst, float(np.abs(found[0, 1 : 1 + _PAIRS] - theirs).max()))
        ratios.append(monai / ours)
        rates.append(1 / ours)
    return {
        "measure": "ms-ssim",
        "metric": "ours, all pairs at once",
        "pairs_per_second": result.of_rounds(rates),
        "monai_over_ours": result.of_rounds(ratios),
        "largest_difference": worst,
    }


def audit(n: int) -> result.Row:
    """Wall seconds and memory of an audit of n against n volumes, with n training volumes."""
    sets = [volumes(n, seed) for seed in (1, 2, 3)]
    held = sum(s.volumes.nbytes for s in sets) / 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    begun = time.perf_counter()
    workers = os.cpu_count() or 1
    auditor = Auditor.from_volumes(sets[0], sets[1], mni_space(4), MAPS, None, workers)
    auditor.audit("large", MeasuredSet.from_volumes(sets[2], auditor.grid, workers))
    return {
        "measure": "audit",
        "volumes": n,
        "wall_seconds": time.perf_counter() - begun,
        "volumes_mib": held,
        "further_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before,
    }


@command()
def main() -> None:
    """Measure how fast the judge is, and write results/judge.json."""
    from benchmarks import table_definitions

    rows = [similarity(), *(audit(n) for n in progress(_VOLUMES, len(_VOLUMES), "audits"))]
    found = result.write(
        "judge", rows, n={"rounds": _ROUNDS}, threads=os.cpu_count() or 1, intervals=result.ROUNDS
    )
    for name in ("judge-similarity", "judge-audits"):
        click.echo(table_definitions.TABLES[name].body(found) + "\n")


if __name__ == "__main__":
    main()
