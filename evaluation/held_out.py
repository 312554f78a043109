"""The cheap score that the search and the promotion gate use: quality on validation subjects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MAPS
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

    def judged(volumes: Array) -> Table:
        return features(volumes[:, : len(MAPS)], generator.space, MAPS)

    seen = judged(train)
    volumes = generator.sample(*requests(conditions, samples, seed), steps)
    made, new, known = (
        standardised(values, seen) for values in (judged(volumes), judged(held_out), seen)
    )
    first = (np.arange(len(made) + len(new)) < len(made)).astype(np.float64)[None]
    distance = kernel(np.concatenate([made, new]), median_distance(known))
    return HeldOut(
        kernel_distance=float(distance(first, 1 - first)[0, 0]),
        copy_share=copy_share(made, new, known),
    )
