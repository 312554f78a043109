"""What each method promises of its own: the equation of its paper, and its settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from contracts.errors import UserError
from models.adapters.adapter import Adapter
from models.adapters.method import method
from models.generator import Generator
from tests.models.adapters.weights import current, weights


def test_bad_settings_are_told() -> None:
    with pytest.raises(UserError, match="rank must be at least 1, got 0"):
        method("lora", {"rank": 0})
    with pytest.raises(UserError, match="alpha must be above 0"):
        method("dora", {"alpha": 0.0})
    with pytest.raises(UserError, match="unknown method 'adalora': expected one of attention"):
        method("adalora", {})
    with pytest.raises(UserError, match="bitfit has no setting rank: it has none"):
        method("bitfit", {"rank": 3})


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
        after = torch.linalg.svdvals(current(network, target).flatten(1).double())
        expected = before.clone()
        expected[2] *= 1.1
        torch.testing.assert_close(after, expected.sort(descending=True).values, rtol=1e-4, atol=0)

    def test_values_do_not_become_negative(self, base: Generator) -> None:
        network = base.denoiser.network
        adapter = Adapter(network, method("svdiff", {}))
        target = next(t for t in adapter.changes if t.kind == "linear")
        with torch.no_grad():
            adapter.named_parameters()[f"{target.name}.shift"].fill_(-1e3)
        assert current(network, target).abs().max() < 1e-4

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
