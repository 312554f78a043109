"""What every method promises, in 2D and in 3D: each runs the same suite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from contracts.condition import Condition
from contracts.errors import UserError
from models.adapters.adapted import adapted
from models.adapters.adapter import Adapter
from models.adapters.files import AdapterFile
from models.adapters.method import Method, matrix, method, methods
from models.adapters.targets import Target, all_targets, blocks
from models.diffusion.network import PatchUNet
from models.generator import Generator
from tests.models.tiny import tiny_generator

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in methods()),
    ("lora", {"rank": 2, "alpha": 4.0, "rank_stabilised": True}),
    ("lora", {"rank": 3, "tucker": False}),
    ("dora", {"rank": 2}),
]
TRAINED = [case for case in CASES if methods()[case[0]].trains_something]
WHO = ([Condition(40, "F")], [11], 2)


@pytest.fixture(params=["2d", "3d"])
def base(request: pytest.FixtureRequest) -> Generator:
    return tiny_generator(request.param)


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def any_method(request: pytest.FixtureRequest) -> Method:
    return method(*request.param)


@pytest.fixture(params=TRAINED, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def trained_method(request: pytest.FixtureRequest) -> Method:
    return method(*request.param)


def disturb(adapter: Adapter, seed: int = 1) -> None:
    """Random values in place of trained ones."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))


def weights(network: PatchUNet) -> dict[str, torch.Tensor]:
    """The tensors that a network computes with, adapters included."""
    return {t.name: _current(network, t) for t in all_targets(network)}


def _current(network: PatchUNet, target: Target) -> torch.Tensor:
    found: torch.Tensor = getattr(network.get_submodule(target.module), target.tensor)
    return found.detach().clone()


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def file_of(adapter: Adapter, base: Generator, gain: float = 1.0) -> AdapterFile:
    prior = base.prior.with_gain(np.array([gain, 1 / gain, 1], dtype=np.float32))
    shift = np.full((prior.channels, 2, 2, 2), gain - 1, dtype=np.float32)
    return AdapterFile.of(
        adapter,
        base.digest,
        base.coverage,
        prior.with_mean_shift(shift),
        {"val_kernel_distance": 0.25},
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
    shape = (2, base.prior.channels, *base.prior.mask.shape)
    noisy = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    estimate = base.denoiser(noisy, torch.full((2,), 0.5), torch.ones(2, 2))
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
    assert read.scores == {"val_kernel_distance": 0.25}
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


# What each method trains, counted by its formula from the shapes alone.


def _lora(network: PatchUNet, rank: int) -> int:
    total = 0
    for target in all_targets(network):
        shape = target.of_base(network).shape
        if target.tensor == "weight" and target.kind in ("convolution", "linear"):
            rows, columns = matrix(target.of_base(network))
            r, kernel = min(rank, rows, columns), int(np.prod(shape[2:]))
            if kernel > 1:
                r = min(r, shape[1])
                total += r * (rows + shape[1] + r * kernel)
            else:
                total += r * (rows + columns)
    return total


def _dora(network: PatchUNet, rank: int) -> int:
    layers = [
        target
        for target in all_targets(network)
        if target.tensor == "weight" and target.kind in ("convolution", "linear")
    ]
    return _lora(network, rank) + sum(len(t.of_base(network)) for t in layers)


def _svdiff(network: PatchUNet) -> int:
    shapes = [t.of_base(network) for t in all_targets(network) if t.tensor == "weight"]
    return sum(min(matrix(w)) if w.ndim > 1 else len(w) for w in shapes)


def _difffit(network: PatchUNet) -> int:
    total = 0
    for target in all_targets(network):
        tensor = target.of_base(network)
        if target.tensor == "bias" or target.kind == "norm":
            total += len(tensor)
        elif target.block == "condition_embed":
            total += tensor.numel()
        elif target.module.endswith(("conv2.conv", "out_proj")):
            total += len(tensor)
    return total


def _sum(network: PatchUNet, chosen: Callable[[Target], bool]) -> int:
    return sum(t.of_base(network).numel() for t in all_targets(network) if chosen(t))


COUNTS: dict[str, Callable[[PatchUNet], int]] = {
    "none": lambda network: 0,
    "lora": lambda network: _lora(network, 4),
    "dora": lambda network: _dora(network, 4),
    "svdiff": _svdiff,
    "difffit": _difffit,
    "bitfit": lambda network: _sum(network, lambda t: t.tensor == "bias"),
    "norm": lambda network: _sum(network, lambda t: t.kind == "norm"),
    "attention": lambda network: _sum(network, lambda t: "attention" in t.block),
    "full": lambda network: sum(p.numel() for p in network.parameters()),
}


@pytest.mark.parametrize("name", sorted(methods()))
def test_the_count_is_that_of_the_formula(base: Generator, name: str) -> None:
    expected = COUNTS[name](base.denoiser.network)
    assert Adapter(base.denoiser.network, method(name, {})).count == expected


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


def test_bad_settings_are_told() -> None:
    with pytest.raises(UserError, match="rank must be at least 1, got 0"):
        method("lora", {"rank": 0})
    with pytest.raises(UserError, match="alpha must be above 0"):
        method("dora", {"alpha": 0.0})
    with pytest.raises(UserError, match="unknown method 'adalora': expected one of attention"):
        method("adalora", {})
    with pytest.raises(UserError, match="bitfit has no setting rank: it has none"):
        method("bitfit", {"rank": 3})


def test_a_broken_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as an adapter"):
        AdapterFile.read(tmp_path / "a.safetensors")


class TestSVDiff:
    """Han et al. 2023, equation 3."""

    def test_a_shift_moves_its_singular_value_alone(self, base: Generator) -> None:
        network = base.denoiser.network
        adapter = Adapter(network, method("svdiff", {}))
        target = next(t for t in adapter.changes if t.kind == "convolution")
        before = torch.linalg.svdvals(target.of_base(network).flatten(1).double())
        shift = adapter.named_parameters()[f"{target.name}.shift"]
        with torch.no_grad():
            shift[2] += 0.1 * before[2].float()
        after = torch.linalg.svdvals(_current(network, target).flatten(1).double())
        expected = before.clone()
        expected[2] *= 1.1
        torch.testing.assert_close(after, expected.sort(descending=True).values, rtol=1e-4, atol=0)

    def test_values_do_not_become_negative(self, base: Generator) -> None:
        network = base.denoiser.network
        adapter = Adapter(network, method("svdiff", {}))
        target = next(t for t in adapter.changes if t.kind == "linear")
        with torch.no_grad():
            adapter.named_parameters()[f"{target.name}.shift"].fill_(-1e3)
        assert _current(network, target).abs().max() < 1e-4

    def test_a_layer_of_zeros_can_move(self, base: Generator) -> None:
        network = base.denoiser.network
        last = network.unet.middle_block.resnet_1.conv2.conv
        nn.init.zeros_(last.weight)
        adapter = Adapter(network, method("svdiff", {}))
        last.weight.sum().backward()
        gradients = {
            n: p.grad for n, p in adapter.named_parameters().items() if "resnet_1.conv2" in n
        }
        assert len(gradients) == 1
        assert all(g is not None and g.any() for g in gradients.values())

    def test_norms_are_trained_slowly(self, base: Generator) -> None:
        adapter = Adapter(base.denoiser.network, method("svdiff", {}))
        factors = dict(zip(adapter.named_parameters(), adapter.rate_factors(), strict=True))
        assert set(factors.values()) == {1.0, 1e-3}
        assert all(("norm" in name or "out.0" in name) == (f < 1) for name, f in factors.items())


def test_difffit_scales_the_output_of_a_residual_branch(base: Generator) -> None:
    network = base.denoiser.network
    before = weights(network)
    adapter = Adapter(network, method("difffit", {}))
    with torch.no_grad():
        for name, parameter in adapter.named_parameters().items():
            if name.endswith("conv2.conv.weight.scale"):
                parameter.fill_(0.5)
    scaled = [n for n in before if ".conv2.conv." in n]
    after = weights(network)
    assert scaled
    for name in before:
        factor = 1.5 if name in scaled else 1.0
        torch.testing.assert_close(after[name], factor * before[name])


def test_dora_keeps_the_length_of_each_channel(base: Generator) -> None:
    """Without a change of magnitude, only directions change (Liu et al. 2024, equation 5)."""
    network = base.denoiser.network
    before = weights(network)
    adapter = Adapter(network, method("dora", {"rank": 2}))
    with torch.no_grad():
        for name, parameter in adapter.named_parameters().items():
            if not name.endswith("magnitude"):
                parameter.add_(0.3)
    after = weights(network)
    for target in adapter.changes:
        old, new = (w[target.name].flatten(1) for w in (before, after))
        assert (old - new).abs().max() > 1e-3
        torch.testing.assert_close(new.norm(dim=1), old.norm(dim=1), rtol=1e-4, atol=1e-5)
