"""A small generator with random weights, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from cohort import channels
from cohort.group_template import GroupTemplate
from contracts.condition import Condition
from contracts.maps import FA, MD
from models.config import DiffusionConfig, Dim, NetworkConfig
from models.coverage import Coverage
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.prior.prior import Prior
from tests.cohort.tiny import SPACE, people, tiny_volumes

NETWORK = NetworkConfig(channels=(16, 16), attention=True)
PATH = DiffusionConfig()
DDPM = DiffusionConfig(path="ddpm", sampler="ancestral")
_COUNT = 24


def tiny_generator(
    dim: Dim,
    seed: int = 0,
    trained: bool = True,
    path: DiffusionConfig = PATH,
    network: NetworkConfig = NETWORK,
    drop_condition: float = 0.0,
) -> Generator:
    """A generator whose network has random weights everywhere, or is untrained."""
    config = GeneratorConfig(
        dim=dim,
        space=SPACE,
        maps=("fa", "md"),
        network=network,
        diffusion=path,
        coverage=Coverage.of(people(_COUNT)),
        drop_condition=drop_condition,
    )
    torch.manual_seed(seed)
    generator = Generator(config, _prior())
    return randomised(generator) if trained else generator


def randomised(generator: Generator) -> Generator:
    """With random weights where there were zeros, as if it were trained."""
    with torch.no_grad():
        for parameter in generator.denoiser.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return generator


@cache
def _prior() -> Prior:
    volumes, masks, conditions = tiny_volumes(_COUNT)
    encoded = channels.encode(volumes, masks, (FA, MD))
    return template_prior(encoded, channels.possible_brain(masks), conditions)


def template_prior(
    encoded: np.ndarray,
    reach: np.ndarray,
    known: Sequence[Condition],
    sites: tuple[str, ...] = (),
) -> Prior:
    """A prior of encoded volumes, which are registered to their template."""
    template, displacements = GroupTemplate.fit(encoded, reach, known)
    return Prior.fit(template, encoded, displacements, known, sites)
