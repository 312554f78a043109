"""Cheap scores of a generator on held-out subjects, for the search and the promotion gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class HeldOutSubjects:
    """What generators are scored beside: measured once, for as many generators as there are.

    Scores with the same training subjects can be compared whatever is held out: the spread of
    `regions` and the scale of the features are theirs.

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), of the held-out subjects, in physical units.
    conditions : of the held-out subjects.
    features : of the held-out subjects, then of the training subjects, before scaling; see
        `evaluation.block_features`.
    """

    regions: RegionalMeans
    volumes: Float32Array
    conditions: tuple[Condition, ...]
    space: Space
    features: tuple[Float64Array, Float64Array]

    @classmethod
    def of(
        cls,
        regions: RegionalMeans,
        train: Float32Array,
        held_out: Float32Array,
        conditions: Sequence[Condition],
        space: Space,
    ) -> HeldOutSubjects:
        """Measures the subjects.

        Parameters
        ----------
        train, held_out : (n, maps, X, Y, Z) in physical units.
        """
        features = (_features(held_out, space), _features(train, space))
        return cls(regions, held_out, tuple(conditions), space, features)

    def means(self, generator: Generator, samples: int, steps: int, seed: int) -> Float64Array:
        """Returns the regional means of samples as in `score`, (samples, 2, R)."""
        chosen, seeds = sample_conditions(self.conditions, samples, seed)
        return self.regions(generator.sample(chosen, seeds, steps))

    def score(self, generator: Generator, samples: int, steps: int, seed: int = 0) -> HeldOut:
        """Samples at the held-out subjects' ages and sexes and compares FA and MD.

        Parameters
        ----------
        samples : the number of synthetic volumes.
        steps : network evaluations per volume.
        seed : of the first volume.
        """
        chosen, seeds = sample_conditions(self.conditions, samples, seed)
        volumes = generator.sample(chosen, seeds, steps)
        made, new, known = (
            standardised(one, self.features[1])
            for one in (_features(volumes, self.space), *self.features)
        )
        distance = self.regions.distance(volumes, self.volumes)
        return HeldOut(distance, copy_share(made, new, known))


def _features(volumes: Float32Array, space: Space) -> Float64Array:
    return block_features(volumes[:, : len(MAPS)], space, MAPS)
