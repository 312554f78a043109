"""Training an adapter in less memory: the same gradients, whatever it changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.adapters.adapter import Adapter
from models.adapters.method import method
from models.config import NetworkConfig
from models.diffusion.network import ConditionedUNet

CONFIG = NetworkConfig(channels=(16, 32), attention=True)
METHODS = ("lora", "dora", "svdiff", "difffit", "bitfit", "full")


def adapted(dims: int, *names: str) -> tuple[ConditionedUNet, list[torch.nn.Parameter]]:
    """Returns a network with adapters that were trained a little, and what they train."""
    torch.manual_seed(0)
    network = ConditionedUNet(dims, 2, 1, 2, CONFIG)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    trained: list[torch.nn.Parameter] = []
    for i, name in enumerate(names):
        trained += Adapter(network, method(name, {}), name=f"adapter_{i}").parameters()
    for parameter in trained:
        torch.nn.init.normal_(parameter.requires_grad_(), std=0.02)
    return network, trained


def gradients(
    network: ConditionedUNet, trained: list[torch.nn.Parameter], dims: int, bf16: bool = False
) -> tuple[list[Tensor], int]:
    """Returns the gradients, and the bytes kept for the backward pass beside the weights."""
    generator = torch.Generator().manual_seed(1)
    # The lowest level has three voxels along each axis: with two along the first, torch 2.13 gives
    # wrong gradients of 3D convolutions in bf16 on processors that have it (oneDNN).
    x = torch.randn(2, 2, *(12, 16, 12)[:dims], generator=generator)
    weights = {t.untyped_storage().data_ptr() for t in network.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        out = network(x, torch.tensor([0.2, 0.7]), torch.zeros(2, 2))
    out.float().square().mean().backward()
    found = [p.grad.clone() for p in trained if p.grad is not None]
    assert len(found) == len(trained)
    network.zero_grad()
    return found, sum(held.values())


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("names", [*((name,) for name in METHODS), ("lora", "difffit")])
def test_gradients_are_the_same(names: tuple[str, ...], dims: int, bf16: bool) -> None:
    network, trained = adapted(dims, *names)
    expected, more = gradients(network, trained, dims, bf16)
    network.recompute(True)
    found, less = gradients(network, trained, dims, bf16)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    # In bf16 the weights, of which copies are kept, outweigh images as small as these.
    assert bf16 or less < more


@pytest.mark.parametrize("on", [False, True])
def test_a_frozen_convolution_keeps_its_input_only_without_it(on: bool) -> None:
    network, _ = adapted(3, "bitfit")
    network.recompute(on)
    inputs: list[Tensor] = []  # held, so that no other tensor gets their place
    network.unet.conv_in.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    found: set[int] = set()

    def see(tensor: Tensor) -> Tensor:
        found.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        network(torch.randn(2, 2, 8, 16, 8), torch.ones(2), torch.zeros(2, 2))
    assert (inputs[0].data_ptr() in found) != on
