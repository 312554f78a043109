"""The measurement of memory runs, and what shapes tell comes near to it."""

from __future__ import annotations

from benchmarks import memory
from contracts.space import Space, mni_space
from models.config import NetworkConfig
from training.settings import LoopSettings

SPACE = Space("small", (16, 16, 16), mni_space(4.0).affine)


def test_steps_of_all_methods_are_measured() -> None:
    network = NetworkConfig(channels=(16, 32))
    found = memory.steps("3d", SPACE, network, LoopSettings(steps=1, batch=1), rounds=1)
    assert set(found) == set(memory.METHODS)
    assert found["full"]["value"] == 1
    assert all(row["value"] > 0 for row in found.values())
