"""What every adapter promises; each method runs the same suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from contracts.condition import Condition
from contracts.errors import UserError
from models.adapters.adapter import select_layers
from models.adapters.files import build, load_adapted
from models.generator import Generator
from tests.models.tiny import tiny_generator

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("lora", {"rank": 2, "targets": "all"}),
    ("lora", {"rank": 4, "targets": "conv"}),
    ("lora", {"rank": 4, "targets": "attention"}),
]
WHO = ([Condition(40, "F")], [11], 2)


@pytest.fixture(params=["2d", "3d"])
def base(request: pytest.FixtureRequest) -> Generator:
    return tiny_generator(request.param)


def disturb(parameters: list[nn.Parameter]) -> None:
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))


@pytest.mark.parametrize(("method", "settings"), METHODS)
class TestAdapter:
    def test_step_zero_changes_nothing(
        self, base: Generator, method: str, settings: dict[str, Any]
    ) -> None:
        before = base.sample(*WHO)
        build(method, settings).inject(base.denoiser.network)
        np.testing.assert_array_equal(base.sample(*WHO), before)

    def test_only_the_adapter_is_trainable(
        self, base: Generator, method: str, settings: dict[str, Any]
    ) -> None:
        adapter = build(method, settings)
        adapter.inject(base.denoiser.network)
        free = {id(p) for p in base.denoiser.network.parameters() if p.requires_grad}
        assert free == {id(p) for p in adapter.trainable()}
        assert free

    def test_merged_equals_unmerged(
        self, base: Generator, method: str, settings: dict[str, Any]
    ) -> None:
        before = base.sample(*WHO)
        adapter = build(method, settings)
        adapter.inject(base.denoiser.network)
        disturb(adapter.trainable())
        unmerged = base.sample(*WHO)
        adapter.merge()
        np.testing.assert_allclose(base.sample(*WHO), unmerged, atol=1e-6)
        assert not np.array_equal(unmerged, before)

    def test_discarding_restores_the_base_bit_for_bit(
        self, base: Generator, method: str, settings: dict[str, Any]
    ) -> None:
        digest = base.digest
        adapter = build(method, settings)
        adapter.inject(base.denoiser.network)
        disturb(adapter.trainable())
        adapter.discard()
        assert base.digest == digest

    def test_the_file_makes_the_same_generator(
        self, base: Generator, tmp_path: Path, method: str, settings: dict[str, Any]
    ) -> None:
        original = tiny_generator(base.dim)
        adapter = build(method, settings)
        adapter.inject(base.denoiser.network)
        disturb(adapter.trainable())
        gain = np.array([0.9, 1.1, 1.0], dtype=np.float32)
        path = tmp_path / "adapter.safetensors"
        adapter.save(path, original.digest, gain)
        adapter.merge()
        loaded = load_adapted(path, original)
        assert (loaded.prior.site_gain == gain).all()
        for name, value in base.denoiser.network.state_dict().items():
            assert torch.equal(loaded.denoiser.network.state_dict()[name], value), name

    def test_an_untrained_base_is_refused(
        self, base: Generator, method: str, settings: dict[str, Any]
    ) -> None:
        fresh = tiny_generator(base.dim, trained=False)
        with pytest.raises(UserError, match="train the base first"):
            build(method, settings).inject(fresh.denoiser.network)

    def test_another_base_is_refused(
        self, base: Generator, tmp_path: Path, method: str, settings: dict[str, Any]
    ) -> None:
        adapter = build(method, settings)
        adapter.inject(base.denoiser.network)
        adapter.save(tmp_path / "a.safetensors", "somethingelse", np.ones(2, dtype=np.float32))
        with pytest.raises(UserError, match="load the base it was trained on"):
            load_adapted(tmp_path / "a.safetensors", tiny_generator(base.dim))


@pytest.mark.parametrize("targets", ["attention", "conv", "all"])
def test_lora_size_is_rank_times_both_sides(
    base: Generator, targets: Literal["attention", "conv", "all"]
) -> None:
    network, rank = base.denoiser.network, 2
    expected = 0
    for _, module in select_layers(network, targets):
        weight = module.get_parameter("weight")
        rows = weight.shape[0]
        columns = weight.numel() // rows
        expected += min(rank, rows, columns) * (rows + columns)
    adapter = build("lora", {"rank": rank, "targets": targets})
    adapter.inject(network)
    assert sum(p.numel() for p in adapter.trainable()) == expected


def test_bad_settings_are_told(base: Generator) -> None:
    with pytest.raises(UserError, match="at least 1, got 0"):
        build("lora", {"rank": 0})
    with pytest.raises(UserError, match="unknown adapter 'dora'"):
        build("dora", {})


def test_a_broken_file_is_told(base: Generator, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as an adapter"):
        load_adapted(tmp_path / "a.safetensors", base)
