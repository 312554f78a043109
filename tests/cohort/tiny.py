"""Small cohorts in memory and on disk, as the stages before training leave them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from cohort.derivatives import (
    Derivatives,
    Participant,
    write_description,
    write_participants,
    write_subject,
)
from cohort.interpolation import displaced, smooth
from contracts.bids import SPACE as SPACE_FILE
from contracts.condition import Condition
from contracts.maps import MD
from contracts.space import Space

SPACE = Space.from_affine("tiny_res-20", (8, 16, 8), np.diag([20.0, 12.0, 20.0, 1.0]))
# The grid of bent brains.
BENT_SPACE = Space.from_affine("bent_res-4", (16, 18, 14), np.diag([4.0, 4.0, 4.0, 1.0]))

Cohort = tuple[np.ndarray, np.ndarray, list[Condition]]


def tiny_volumes(n: int, seed: int = 0) -> Cohort:
    """FA and MD volumes (n, 2, 8, 16, 8) that age, their masks (all alike) and conditions."""
    rng = np.random.default_rng(seed)
    conditions = people(n)
    masks = np.zeros((n, *SPACE.shape), dtype=bool)
    masks[:, 1:-1, 2:-2, 1:-1] = True
    age = np.array([p.age for p in conditions])[:, None, None, None, None]
    volumes = 0.4 + 0.001 * age + 0.05 * rng.standard_normal((n, 2, *SPACE.shape))
    volumes *= np.array([1, MD.scale])[:, None, None, None]
    return (volumes * masks[:, None]).astype(np.float32), masks, conditions


def bent_brains(n: int, seed: int = 0, noise: float = 0.02) -> Cohort:
    """One brain, bent in as many ways: FA and MD volumes (n, 2, 16, 18, 14), masks, conditions."""
    rng = torch.Generator().manual_seed(seed)
    shape = BENT_SPACE.shape
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, s) for s in shape), indexing="ij"))
    radius = grid.pow(2).sum(dim=0).sqrt()
    stripes = torch.sin(9 * grid[0]) * torch.sin(7 * grid[1]) * torch.sin(8 * grid[2])
    brain = torch.stack([0.4 + 0.25 * stripes, 0.9 - 0.3 * stripes, 0.75 - radius])
    volumes, masks = [], []
    for _ in range(n):
        bend = smooth(torch.randn(3, *shape, generator=rng), 2.5)
        one = displaced(brain, 0.6 * bend / bend.std())
        one[:2] *= 1 + noise * torch.randn(2, *shape, generator=rng)
        masks.append((one[2] > 0).numpy())
        volumes.append((one[:2] * (one[2] > 0)).numpy() * np.array([1, 1e-3]).reshape(2, 1, 1, 1))
    return np.stack(volumes).astype(np.float32), np.stack(masks), people(n)


def people(n: int) -> list[Condition]:
    """Women and men in turns, from 18 to 88 years."""
    return [Condition(18.0 + 70.0 * i / n, "F" if i % 2 else "M") for i in range(n)]


def write_cohort(data: Path, subjects: int = 24, sites: tuple[str, ...] = ("one",)) -> Derivatives:
    """Writes `tiny_volumes` to `derivatives/` and `split.json`: all of the group base, all in its
    part train; the sites take turns."""
    return write_volumes(data, SPACE, tiny_volumes(subjects), subjects, sites)


def write_volumes(
    data: Path, space: Space, cohort: Cohort, train: int, sites: Sequence[str] = ("one",)
) -> Derivatives:
    """Writes FA and MD volumes of a cohort; the first `train` are base-train, others target-test.

    Returns
    -------
    The derivatives. Ages are rounded as participants.tsv has them.
    """
    root, (volumes, masks, conditions) = data / "derivatives", cohort
    ids = [f"sub-{i:04d}" for i in range(len(conditions))]
    write_description(root, "tiny", simulated=True, generated_by="tests")
    participants = [
        Participant(name, c.age, c.sex, "base" if i < train else "target", sites[i % len(sites)])
        for i, (name, c) in enumerate(zip(ids, conditions, strict=True))
    ]
    write_participants(root, participants)
    (root / SPACE_FILE).write_text(json.dumps(space.to_json()))
    for name, (fa, md), mask in zip(ids, volumes, masks, strict=True):
        write_subject(root, name, space, {"fa": fa, "md": md}, mask, {})
    parts = {
        "base": {"train": ids[:train], "val": [], "test": []},
        "target": {"train": [], "val": [], "test": ids[train:]},
    }
    (data / "split.json").write_text(json.dumps({"seed": 0, "groups": parts}))
    return Derivatives.open(root)
