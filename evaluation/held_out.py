"""The cheap score that the search and the promotion gate use: quality on validation subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MAPS
from contracts.space import Space
from evaluation.distance import median_distance
from evaluation.fidelity import kernel, standardised
from evaluation.privacy import copy_share
from evaluation.profile import Table, features
from models.generator import Generator

Array = NDArray[np.float32]


class HeldOut(NamedTuple):
    """Scores on held-out subjects.

    Parameters
    ----------
    kernel_distance : see `evaluation.fidelity.kernel`; lower is better.
    copy_share : see `evaluation.privacy.copy_share`.
    """

    kernel_distance: float
    copy_share: float


def requests(
    conditions: Sequence[Condition], samples: int, seed: int
) -> tuple[list[Condition], list[int]]:
    """Conditions and seeds of `samples` volumes that follow the ages and sexes of a set."""
    chosen = [conditions[i % len(conditions)] for i in range(samples)]
    return chosen, [seed + i for i in range(samples)]


def score(
    generator: Generator,
    train: Array,
    held_out: Array,
    conditions: Sequence[Condition],
    samples: int,
    steps: int,
    seed: int = 0,
) -> HeldOut:
    """Sample at the held-out subjects' ages and sexes and compare FA and MD.

    Features are standardised on the training volumes, so that the same training set gives
    comparable numbers whatever is held out.

    Parameters
    ----------
    train, held_out : (n, maps, X, Y, Z) in physical units.
    samples, steps : synthetic volumes, and network evaluations of each.
    """

    volumes = generator.sample(*requests(conditions, samples, seed), steps)
    made, new, known = _points(volumes, held_out, train, generator.space)
    return HeldOut(
        kernel_distance=_distance(made, new, known), copy_share=copy_share(made, new, known)
    )


def kernel_distance(volumes: Array, others: Array, train: Array, space: Space) -> float:
    """`HeldOut.kernel_distance` of any two sets of volumes (n, maps, X, Y, Z)."""
    return _distance(*_points(volumes, others, train, space))


def _points(volumes: Array, others: Array, train: Array, space: Space) -> tuple[Table, ...]:
    tables = [features(v[:, : len(MAPS)], space, MAPS) for v in (volumes, others, train)]
    return tuple(standardised(values, tables[-1]) for values in tables)


def _distance(made: Table, new: Table, known: Table) -> float:
    first = (np.arange(len(made) + len(new)) < len(made)).astype(np.float64)[None]
    distance = kernel(np.concatenate([made, new]), median_distance(known))
    return float(distance(first, 1 - first)[0, 0])
