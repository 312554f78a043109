"""What every method promises, in 2D and in 3D: each runs the same suite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contracts.condition import Condition
from contracts.errors import UserError
from models.adapters.adapted import adapted
from models.adapters.adapter import Adapter
from models.adapters.files import AdapterFile
from models.adapters.method import Method, method, methods
from models.adapters.targets import all_targets, blocks
from models.generator import Generator
from tests.models.adapters.weights import disturb, gap, weights
from tests.models.priors import expected_of, noise
from tests.models.tiny import tiny_generator

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in methods()),
    ("lora", {"rank": 2, "alpha": 4.0, "rank_stabilised": True}),
    ("lora", {"rank": 3, "tucker": False}),
    ("dora", {"rank": 2}),
]
TRAINED = [case for case in CASES if methods()[case[0]].trains_something]
WHO = ([Condition(40, "F")], [11], 2)


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def any_method(request: pytest.FixtureRequest) -> Method:
    return method(*request.param)


@pytest.fixture(params=TRAINED, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def trained_method(request: pytest.FixtureRequest) -> Method:
    return method(*request.param)


def file_of(adapter: Adapter, base: Generator, gain: float = 1.0) -> AdapterFile:
    prior = base.prior.with_gain(np.array([gain, 1 / gain, 1], dtype=np.float32))
    shift = np.full((len(prior.scale), 2, 2, 2), gain - 1, dtype=np.float32)
    return AdapterFile.of(
        adapter,
        base.digest,
        base.coverage,
        prior.with_mean_shift(shift),
        {"val_regional_distance": 0.25},
    )


def trained_file(base: Generator, chosen: Method, seed: int = 1, gain: float = 1.0) -> AdapterFile:
    """The file of an adapter with random values."""
    network = tiny_generator(base.dim).denoiser.network
    adapter = Adapter(network, chosen)
    disturb(adapter, seed)
    return file_of(adapter, base, gain)


def test_step_zero_changes_nothing(base: Generator, any_method: Method) -> None:
    before = base.sample(*WHO)
    Adapter(base.denoiser.network, any_method)
    np.testing.assert_allclose(base.sample(*WHO), before, atol=1e-6)


def test_only_the_adapter_is_trainable(base: Generator, any_method: Method) -> None:
    adapter = Adapter(base.denoiser.network, any_method)
    free = {id(p) for p in base.denoiser.network.parameters() if p.requires_grad}
    assert free == {id(p) for p in adapter.parameters()}
    assert bool(free) == any_method.trains_something


def test_every_parameter_can_move(base: Generator, trained_method: Method) -> None:
    """A gradient reaches each parameter once those that start at zero have left it."""
    network = base.denoiser.network
    adapter = Adapter(network, trained_method)
    disturb(adapter)
    estimate = base.denoiser(noise(2), torch.full((2,), 0.5), torch.ones(2, 2), expected_of(2))
    (estimate.clean**2).sum().backward()
    still = [n for n, p in adapter.named_parameters().items() if p.grad is None or not p.grad.any()]
    assert not still


def test_merged_equals_unmerged(base: Generator, trained_method: Method) -> None:
    before = base.sample(*WHO)
    adapter = Adapter(base.denoiser.network, trained_method)
    disturb(adapter)
    unmerged = base.sample(*WHO)
    adapter.merge()
    np.testing.assert_allclose(base.sample(*WHO), unmerged, atol=1e-5)
    assert not np.array_equal(unmerged, before)


def test_the_base_stays_and_comes_back_bit_for_bit(base: Generator, trained_method: Method) -> None:
    digest, before = base.digest, weights(base.denoiser.network)
    adapter = Adapter(base.denoiser.network, trained_method)
    disturb(adapter)
    kept = {t.name: t.of_base(base.denoiser.network) for t in all_targets(base.denoiser.network)}
    assert all(torch.equal(kept[name], before[name]) for name in before)
    adapter.detach()
    assert base.digest == digest


def test_unmerged_is_as_before(base: Generator, trained_method: Method) -> None:
    network = base.denoiser.network
    digest = base.digest
    adapter = Adapter(network, trained_method)
    disturb(adapter)
    adapter.strength = 1.5
    before = weights(network)
    adapter.merge()
    assert base.digest != digest
    adapter.unmerge()
    assert adapter.strength == 1.5
    assert gap(weights(network), before) == 0
    adapter.detach()
    assert base.digest == digest


def test_adapters_are_unmerged_in_the_opposite_order(base: Generator) -> None:
    network, digest = base.denoiser.network, base.digest
    first = Adapter(network, method("full", {}), name="first")
    disturb(first)
    with pytest.raises(RuntimeError, match="first is not merged"):
        first.unmerge()
    first.merge()
    second = Adapter(network, method("full", {}), name="second")
    disturb(second)
    second.merge()
    with pytest.raises(RuntimeError, match="changed after first was merged"):
        first.unmerge()
    for adapter in (second, first):
        adapter.unmerge()
        adapter.detach()
    assert base.digest == digest


def test_the_strength_goes_from_the_base_through_what_was_trained(
    base: Generator, trained_method: Method
) -> None:
    network = base.denoiser.network
    before = weights(network)
    adapter = Adapter(network, trained_method)
    disturb(adapter)
    whole = weights(network)
    adapter.strength = 0
    assert gap(weights(network), before) == 0
    for strength in (0.5, 1.5):
        adapter.strength = strength
        assert adapter.strength == strength
        expected = {n: before[n] + strength * (whole[n] - before[n]) for n in before}
        assert gap(weights(network), expected) < 1e-5
    adapter.strength = 1
    assert gap(weights(network), whole) == 0


def test_two_adapters_add_up_in_any_order(base: Generator, trained_method: Method) -> None:
    before = weights(base.denoiser.network)
    files = [trained_file(base, trained_method, seed) for seed in (1, 2)]
    alone = [weights(adapted(base, [(file, 1.0)]).denoiser.network) for file in files]
    both = weights(adapted(base, [(file, 1.0) for file in files]).denoiser.network)
    turned = weights(adapted(base, [(file, 1.0) for file in files[::-1]]).denoiser.network)
    expected = {n: alone[0][n] + alone[1][n] - before[n] for n in before}
    assert gap(both, expected) < 1e-5
    assert gap(both, turned) < 1e-5
    assert gap(weights(base.denoiser.network), before) == 0


def test_a_file_makes_the_same_generator(
    base: Generator, tmp_path: Path, trained_method: Method
) -> None:
    adapter = Adapter(base.denoiser.network, trained_method)
    disturb(adapter)
    file = file_of(adapter, tiny_generator(base.dim), gain=1.1)
    file.write(tmp_path / "adapter.safetensors")
    read = AdapterFile.read(tmp_path / "adapter.safetensors")
    assert read.scores == {"val_regional_distance": 0.25}
    assert (read.method, read.settings) == (trained_method.name, trained_method.settings())
    made = adapted(tiny_generator(base.dim), [(read, 1.0)])
    assert gap(weights(made.denoiser.network), weights(base.denoiser.network)) == 0
    np.testing.assert_array_equal(made.prior.site_gain, file.gain)
    np.testing.assert_array_equal(made.prior.mean_shift, file.mean_shift)
    halved = adapted(tiny_generator(base.dim), [(read, 0.5)])
    assert file.mean_shift is not None
    assert halved.prior.mean_shift is not None
    np.testing.assert_allclose(halved.prior.mean_shift, 0.5 * file.mean_shift)
    np.testing.assert_allclose(halved.prior.site_gain[0], 1.1**0.5, rtol=1e-6)


def test_an_untrained_base_is_refused(base: Generator, any_method: Method) -> None:
    fresh = tiny_generator(base.dim, trained=False)
    with pytest.raises(UserError, match="train the base first"):
        Adapter(fresh.denoiser.network, any_method)


def test_another_base_is_refused(base: Generator, any_method: Method) -> None:
    file = replace(trained_file(base, any_method), base="somethingelse")
    with pytest.raises(UserError, match="load the base it was trained on"):
        adapted(base, [(file, 1.0)])


def test_a_change_that_means_something_else_here_is_refused(
    base: Generator, trained_method: Method
) -> None:
    file = trained_file(base, trained_method)
    target, (value, size) = next(iter(file.checksums.items()))
    other = replace(file, checksums={**file.checksums, target: (value + 0.01 * size, size)})
    with pytest.raises(UserError, match="adapt again on this machine"):
        adapted(base, [(other, 1.0)])


def test_every_tensor_of_the_network_is_a_target(base: Generator) -> None:
    network = base.denoiser.network
    before = all_targets(network)
    assert {t.name for t in before} == {name for name, _ in network.named_parameters()}
    Adapter(network, method("full", {}))
    assert all_targets(network) == before


def test_blocks_choose_what_is_changed(base: Generator) -> None:
    network = base.denoiser.network
    assert {"conv_in", "time_embed", "condition_embed", "middle.resnet_1", "out"} <= set(
        blocks(network)
    )
    chosen = Adapter(network, method("full", {}), ("up.*", "middle.attention"))
    changed = {target.block for target in chosen.changes}
    assert changed == {b for b in blocks(network) if b.startswith("up.")} | {"middle.attention"}
    with pytest.raises(UserError, match=r"no block of the network matches sideways\.\*"):
        Adapter(network, method("full", {}), ("up.*", "sideways.*"), name="other")
    with pytest.raises(UserError, match="changes nothing in the blocks conv_in"):
        Adapter(network, method("norm", {}), ("conv_in",), name="other")
    Adapter(network, method("bitfit", {}), ("up.*",), name="mine")
    with pytest.raises(UserError, match="has an adapter mine already"):
        Adapter(network, method("bitfit", {}), ("middle.*",), name="mine")


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as an adapter"):
        AdapterFile.read(tmp_path / "a.safetensors")
