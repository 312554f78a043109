"""A small generator with random weights, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
from models.frame import Frame
from models.identity import GeneratorConfig

from contracts.condition import Condition
from contracts.maps import FA, MD
from contracts.space import Space
from models import representation
from models.config import NetworkConfig, PathConfig
from models.coverage import Coverage
from models.generator import Generator
from models.prior import Prior

SPACE = Space.from_affine("tiny_res-20", (8, 16, 8), np.diag([20.0, 12.0, 20.0, 1.0]))
NETWORK = NetworkConfig(channels=(16, 16), attention=True)
PATH = PathConfig()
_COUNT = 24


def tiny_volumes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[Condition]]:
    """FA and MD volumes (n, 2, 8, 16, 8) that age, their masks and conditions."""
    rng = np.random.default_rng(seed)
    people = [Condition(18.0 + 70.0 * i / n, "F" if i % 2 else "M") for i in range(n)]
    masks = np.zeros((n, *SPACE.shape), dtype=bool)
    masks[:, 1:-1, 2:-2, 1:-1] = True
    age = np.array([p.age for p in people])[:, None, None, None, None]
    volumes = 0.4 + 0.001 * age + 0.05 * rng.standard_normal((n, 2, *SPACE.shape))
    volumes *= np.array([1, 3.2e-3])[:, None, None, None]
    return (volumes * masks[:, None]).astype(np.float32), masks, people


def tiny_generator(
    dim: Literal["2d", "3d"],
    seed: int = 0,
    trained: bool = True,
    path: PathConfig = PATH,
    network: NetworkConfig = NETWORK,
    drop_condition: float = 0.0,
) -> Generator:
    """A generator whose network has random weights everywhere, or is untrained."""
    _, _, people = tiny_volumes(_COUNT)
    config = GeneratorConfig(
        dim=dim,
        space=SPACE,
        maps=("fa", "md"),
        network=network,
        path=path,
        coverage=Coverage.of(people),
        drop_condition=drop_condition,
    )
    torch.manual_seed(seed)
    generator = Generator(config, _prior())
    if trained:
        with torch.no_grad():
            for parameter in generator.denoiser.network.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
    return generator


@cache
def _prior() -> Prior:
    volumes, masks, people = tiny_volumes(_COUNT)
    encoded = representation.encode(volumes, masks, (FA, MD))
    return framed_prior(encoded, representation.reach(masks), people)


def framed_prior(encoded: np.ndarray, reach: np.ndarray, people: Sequence[Condition]) -> Prior:
    """A prior of encoded volumes in the frame of their template."""
    frame, shifts = Frame.fit(encoded, reach, people)
    standard = np.stack([frame.displaced(v, s) for v, s in zip(encoded, shifts, strict=True)])
    return Prior.fit(standard, reach, people, frame=frame)
