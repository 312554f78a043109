"""Costs on paper: counted, not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.brains import prepare
from benchmarks.gpu import Case
from benchmarks.paper import DISK_BYTES, operations, preparation
from benchmarks.result import write
from contracts.errors import UserError
from models.config import NetworkConfig


def test_operations_grow_with_the_volume() -> None:
    network = NetworkConfig(channels=(16, 32), attention=False)
    small, size = operations(Case("small", (16, 16, 16), network, 1))
    large, same = operations(Case("large", (32, 16, 16), network, 1))
    assert size == same > 10_000
    # Nearly all is convolution; the attention in the middle grows with the square.
    assert large / small == pytest.approx(2, rel=0.05)


def test_preparation_is_that_of_most_voxels_and_subjects(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"benchmarks\.scaling"):
        preparation(tmp_path)
    rows = [
        {"voxels": 10.0, "subjects": 50, "prepare_seconds_per_volume": 9.0},
        {"voxels": 100.0, "subjects": 5, "prepare_seconds_per_volume": 2.0},
        {"voxels": 100.0, "subjects": 50, "prepare_seconds_per_volume": 1.0},
    ]
    write("scaling", rows, n={}, folder=tmp_path)
    assert preparation(tmp_path) == pytest.approx(0.01)


def test_network_and_disk_are_those_of_a_generator(tmp_path: Path) -> None:
    shape, subjects = (16, 16, 16), 8
    network = NetworkConfig(channels=(16, 16))
    generator, _ = prepare(subjects, shape, network, tmp_path)
    _, parameters = operations(Case("tiny", shape, network, 1))
    assert parameters == sum(p.numel() for p in generator.denoiser.network.parameters())
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    headers = 4 * 128
    assert written == headers + DISK_BYTES * subjects * 16**3
