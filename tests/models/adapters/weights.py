"""The tensors that a network with adapters computes with, and random changes of them."""

from __future__ import annotations

import copy

import numpy as np
import torch

from models.adapters.adapter import Adapter
from models.adapters.files import AdapterFile
from models.adapters.method import method
from models.adapters.targets import Target, all_targets
from models.diffusion.network import ConditionedUNet
from models.generator import Generator


def adapter_file(base: Generator, name: str = "lora", seed: int = 1) -> AdapterFile:
    """An adapter file of a base, with random values, a gain and a shift of the mean."""
    adapter = Adapter(copy.deepcopy(base.denoiser.network), method(name, {}))
    disturb(adapter, seed)
    gain = np.ones(len(base.prior.site_gain), dtype=np.float32)
    gain[:2] = 1.1, 0.95
    shift = np.full((len(base.prior.scale), 2, 2, 2), 0.1 * seed, dtype=np.float32)
    prior = base.prior.with_gain(gain).with_mean_shift(shift)
    return AdapterFile.of(adapter, base.digest, base.coverage, prior, {})


def disturb(adapter: Adapter, seed: int = 1) -> None:
    """Random values in place of trained ones."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))


def weights(network: ConditionedUNet) -> dict[str, torch.Tensor]:
    """The tensors that a network computes with, adapters included."""
    return {t.name: current(network, t) for t in all_targets(network)}


def current(network: ConditionedUNet, target: Target) -> torch.Tensor:
    found: torch.Tensor = getattr(network.get_submodule(target.module), target.tensor)
    return found.detach().clone()


def gap(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)
