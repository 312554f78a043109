"""Tiny generators with random weights, and a registry that has them as champions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from starlette.testclient import TestClient

from cohort import channels
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import MAPS
from contracts.space import Space
from models.config import DiffusionConfig, Dim, NetworkConfig
from models.coverage import Coverage
from models.generator import Generator
from models.generator_config import GeneratorConfig
from registry import champion
from registry.champion import Fetched
from serving.messages import DIMS
from tests.models.tiny import template_prior

# Voxels of three sizes, a turn about x and an x axis that runs to the left: a swapped axis, sign
# or corner would show.
SPACE = Space.from_affine(
    "tiny", (12, 16, 8), [[-4, 0, 0, 20], [0, 2.4, -2.1, -30], [0, 1.8, 2.8, -10], [0, 0, 0, 1]]
)
AGES = (20.0, 80.0)
# Both sexes at every age but for young men.
PEOPLE = [
    Condition(float(age), "F" if k % 2 else "M")
    for age in np.arange(*AGES, 0.5)
    for k in range(2)
    if k % 2 or age >= 40
]


def tiny_generator(dim: Dim) -> Generator:
    """A generator whose network has random weights: untrained, but not silent."""
    rng = np.random.default_rng(7)
    ages = np.linspace(*AGES, 12)
    conditions = [Condition(float(a), "F" if i % 2 else "M") for i, a in enumerate(ages)]
    mask = np.zeros((len(ages), *SPACE.shape), dtype=np.bool_)
    mask[:, 2:-2, 2:-2, 1:-1] = True
    network_range = rng.normal(0.4, 0.1, (len(ages), 2, *SPACE.shape)) * mask[:, None]
    scales = np.array([m.scale for m in MAPS])[:, None, None, None]
    encoded = channels.encode((network_range * scales).astype(np.float32), mask, MAPS)
    config = GeneratorConfig(
        dim=dim,
        space=SPACE,
        maps=("fa", "md"),
        network=NetworkConfig(channels=(16, 32)),
        diffusion=DiffusionConfig(),
        coverage=Coverage.of(PEOPLE),
        provenance={"data": "random"},
    )
    prior = template_prior(encoded, channels.possible_brain(mask), conditions)
    generator = Generator(config, prior)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in generator.denoiser.network.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return generator


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Dim, Path]:
    """A saved generator per dimension."""
    root = tmp_path_factory.mktemp("generators")
    for dim in DIMS:
        tiny_generator(dim).save(root / f"tiny-{dim}")
    return {dim: root / f"tiny-{dim}" for dim in DIMS}


def registered(folders: dict[Dim, Path]) -> dict[Dim, Fetched]:
    """What the registry would say of these folders."""
    return {
        dim: Fetched(f"dti-{dim}", "3", Generator.load(folder).digest, folder)
        for dim, folder in folders.items()
    }


@contextmanager
def registry_of(present: dict[Dim, Fetched]) -> Iterator[None]:
    """The registry has these champions and no others."""

    def found(dim: Dim) -> Fetched:
        if dim not in present:
            raise UserError(f"no model 'dti-{dim}@champion': train and register one: dvc repro")
        return present[dim]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(champion, "fetch_champion", found)
        yield


@contextmanager
def started() -> Iterator[TestClient]:
    """The service, started with the champions of the moment."""
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.server.metrics.prometheus import PrometheusClient

    from serving.service import SyntheticDTI

    # BentoML's metrics can be registered once per process; every start gets its own registry.
    metrics = PrometheusClient(multiproc=False)
    metrics._registry = CollectorRegistry()
    BentoMLContainer.metrics_client.set(metrics)
    with TestClient(cast(Any, SyntheticDTI).to_asgi()) as client:
        yield client


@pytest.fixture
def champions(folders: dict[Dim, Path]) -> Iterator[dict[Dim, Fetched]]:
    """The registry's champions; a test may take one away or change it."""
    present = registered(folders)
    with registry_of(present):
        yield present


@pytest.fixture(scope="session")
def service(folders: dict[Dim, Path]) -> Iterator[TestClient]:
    """The service with both champions, started once."""
    with ExitStack() as running:
        # The registry is read at the start alone: other tests need theirs back.
        with registry_of(registered(folders)):
            client = running.enter_context(started())
        yield client
