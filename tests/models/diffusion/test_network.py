"""The network: its inputs, and recomputed activations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models.config import NetworkConfig
from models.diffusion.network import ConditionedUNet

CONFIG = NetworkConfig(channels=(16, 32), attention=True)


@pytest.fixture
def network() -> ConditionedUNet:
    torch.manual_seed(0)
    built = ConditionedUNet(3, 2, 1, 2, CONFIG)
    for parameter in built.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return built


def run(network: ConditionedUNet) -> tuple[Tensor, list[Tensor], int]:
    """Output, gradients, and bytes kept for the backward pass."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 2, 8, 16, 8, generator=generator)
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    unpack: Callable[[Tensor], Tensor] = lambda tensor: tensor  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        out = network(x, torch.tensor([0.2, 0.7]), torch.zeros(2, 2))
    out.square().mean().backward()
    gradients = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    return out.detach(), gradients, sum(n for at, n in held.items() if at not in weights)


@pytest.mark.parametrize("dims", [2, 3])
def test_channels_may_come_in_parts(dims: int) -> None:
    """The parts are put together in their order, whatever their number."""
    torch.manual_seed(0)
    network = ConditionedUNet(dims, 4, 2, 2, CONFIG)
    torch.nn.init.normal_(network.unet.out[-1].conv.weight)
    x, t, condition = torch.randn(2, 4, *(8, 8, 16)[:dims]), torch.ones(2), torch.zeros(2, 2)
    whole = network(x, t, condition)
    assert whole.shape == (2, 2, *x.shape[2:])
    assert whole.any()
    assert torch.equal(network((x[:, :1], x[:, 1:3], x[:, 3:]), t, condition), whole)
    assert not torch.allclose(network((x[:, 3:], x[:, :3]), t, condition), whole)


def test_time_and_condition_reach_the_output(network: ConditionedUNet) -> None:
    x, t, condition = torch.randn(1, 2, 8, 8, 8), torch.tensor([0.3]), torch.zeros(1, 2)
    plain = network(x, t, condition)
    assert not torch.allclose(network(x, t + 0.3, condition), plain)
    assert not torch.allclose(network(x, t, condition + 1), plain)


def test_a_new_network_is_silent() -> None:
    built = ConditionedUNet(3, 2, 1, 2, CONFIG)
    x = torch.randn(1, 2, 8, 8, 8)
    assert not built(x, torch.tensor([0.3]), torch.zeros(1, 2)).any()


def test_recomputing_changes_memory_alone(network: ConditionedUNet) -> None:
    names = list(network.state_dict())
    out, gradients, held = run(network)
    network.recompute(True)
    network.recompute(True)  # twice is once
    again, same, less = run(network)
    assert torch.equal(again, out)
    assert len(same) == len(gradients) == len(list(network.parameters()))
    for one, other in zip(same, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    assert less < 0.6 * held
    assert list(network.state_dict()) == names
    network.recompute(False)
    assert run(network)[2] == held


def test_no_convolution_is_computed_again(network: ConditionedUNet) -> None:
    def operations() -> int:
        with FlopCounterMode(display=False) as counter:
            run(network)
        return int(counter.get_total_flops())

    plain = operations()
    network.recompute(True)
    assert operations() == plain


def test_without_gradients_nothing_is_recomputed(network: ConditionedUNet) -> None:
    network.recompute(True)
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 8, 8, 8), torch.ones(1), torch.zeros(1, 2)).is_inference()
