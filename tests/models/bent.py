"""A prior of brains that differ in shape, the subjects that it was fitted to, and a generator."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from cohort import channels
from cohort.group_template import GroupTemplate
from contracts.condition import Condition
from contracts.maps import MAPS
from models.config import DiffusionConfig, Dim
from models.coverage import Coverage
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.prior.prior import Prior
from tests.cohort.tiny import BENT_SPACE, bent_brains
from tests.models.tiny import NETWORK

COUNT = 32


class Bent(NamedTuple):
    """`tests.cohort.tiny.bent_brains` with their prior."""

    prior: Prior
    encoded: np.ndarray
    displacements: np.ndarray
    masks: np.ndarray
    people: list[Condition]


@cache
def bent() -> Bent:
    """Made once; not to be changed in place."""
    volumes, masks, people = bent_brains(COUNT)
    encoded = channels.encode(volumes, masks, MAPS)
    template, displacements = GroupTemplate.fit(encoded, channels.possible_brain(masks), people)
    found = np.array(displacements)
    return Bent(Prior.fit(template, encoded, found, people), encoded, found, masks, people)


def bent_generator(dim: Dim) -> Generator:
    """An untrained generator of such brains."""
    prior, *_, people = bent()
    coverage, names = Coverage.of(people), tuple(spec.name for spec in MAPS)
    path = DiffusionConfig()
    return Generator(GeneratorConfig(dim, BENT_SPACE, names, NETWORK, path, coverage), prior)
