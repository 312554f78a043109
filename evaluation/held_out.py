"""Cheap scores of a generator on held-out subjects, for the search and the promotion gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.maps import MAPS
from contracts.space import Space
from evaluation.block_features import Float64Array, block_features, standardised
from evaluation.copy_share import copy_share
from evaluation.regional_means import RegionalMeans
from models.generator import Generator

Float32Array = NDArray[np.float32]


class HeldOut(NamedTuple):
    """Scores on held-out subjects.

    Parameters
    ----------
    regional_distance : see `RegionalMeans.distance`; lower is better. Unlike the kernel distance
        of `evaluation.evaluate`, it notices a difference that is confined to a few regions.
    copy_share : see `evaluation.copy_share`.
    """

    regional_distance: float
    copy_share: float


def sample_conditions(
    conditions: Sequence[Condition], samples: int, seed: int
) -> tuple[list[Condition], list[int]]:
    """Returns conditions and seeds for samples that follow the ages and sexes of a set.

    Parameters
    ----------
    conditions : of the set, which are repeated in turn.
    samples : how many to return.
    seed : the first seed.
    """
    chosen = [conditions[i % len(conditions)] for i in range(samples)]
    return chosen, [seed + i for i in range(samples)]


def score(
    generator: Generator,
    regions: RegionalMeans,
    train: Float32Array,
    held_out: Float32Array,
    conditions: Sequence[Condition],
    samples: int,
    steps: int,
    seed: int = 0,
) -> HeldOut:
    """Samples at the held-out subjects' ages and sexes and compares FA and MD.

    Scores with the same training subjects can be compared whatever is held out: the spread of
    `regions` and the scale of the features are theirs.

    Parameters
    ----------
    train, held_out : (n, maps, X, Y, Z) in physical units.
    conditions : of the held-out subjects.
    samples : the number of synthetic volumes.
    steps : network evaluations per volume.
    seed : of the first volume.
    """
    chosen, seeds = sample_conditions(conditions, samples, seed)
    volumes = generator.sample(chosen, seeds, steps)
    made, new, known = _features(volumes, held_out, train, generator.space)
    return HeldOut(regions.distance(volumes, held_out), copy_share(made, new, known))


def _features(
    volumes: Float32Array, others: Float32Array, train: Float32Array, space: Space
) -> tuple[Float64Array, ...]:
    features = [block_features(v[:, : len(MAPS)], space, MAPS) for v in (volumes, others, train)]
    return tuple(standardised(values, features[-1]) for values in features)
