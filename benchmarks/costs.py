"""What a sample and a training step cost, ours beside MONAI's, in CPU seconds of one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contestants import fit_steps
from benchmarks.recipes.diffusion import STEPS
from contracts.condition import Condition
from contracts.params import load
from models.config import Dim
from models.generator import Generator
from training.dataset import Subjects
from training.settings import TrainSettings
from training.train import framed, untrained

ROUNDS = 5
EVALUATIONS = (16, 8, 4)
_PEOPLE = (Condition(30.0, "F"), Condition(70.0, "M"))
_TIMED = 4


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each run says, in rounds A B C A B C, after a first round that does not count."""
    for run in runs.values():
        run()
    out: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            out[name].append(run())
    return out


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median and range of the rounds."""
    return {
        "median": float(np.median(values)),
        "least": min(values),
        "most": max(values),
        "n": len(values),
    }


def ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """First over second, round by round."""
    return summary([a / b for a, b in zip(first, second, strict=True)])


def sampling(dim: Dim, subjects: Subjects, work: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """A volume at 16, 8 and 4 evaluations against a DDPM's 1000 evaluations of the same network.

    What a DDPM does between the evaluations is not counted, and an untrained network takes as
    long as a trained one.
    """
    settings = load(TrainSettings, f"train.{dim}")
    seen = framed(settings, subjects, subjects.encoded(), work)
    generator = untrained(dim, settings, subjects, seen, work)
    inputs = _network_inputs(generator)

    def evaluation() -> float:
        with torch.inference_mode():
            return _timed(lambda: generator.denoiser.network(*inputs)) / len(_PEOPLE)

    def sample(steps: int) -> Callable[[], float]:
        return lambda: _timed(lambda: generator.sample(_PEOPLE, (1, 2), steps)) / len(_PEOPLE)

    runs: dict[str, Callable[[], float]] = {str(n): sample(n) for n in EVALUATIONS}
    found = interleaved({"network": evaluation, **runs}, rounds)
    thousand = [STEPS * s for s in found["network"]]
    return {
        "network_evaluation_cpu_s": summary(found["network"]),
        "ddpm_1000_cpu_s": summary(thousand),
        "sample_cpu_s": {k: summary(v) for k, v in found.items() if k != "network"},
        "ddpm_over_sample": {k: ratio(thousand, v) for k, v in found.items() if k != "network"},
    }


def training_step(dim: Dim, subjects: Subjects, work: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """One training step of ours against MONAI's plain step, per volume (3D) or slice (2D).

    ``equal network``: the very network of ours, on inputs of the same size (patches as channels),
    trained as a tutorial trains: inferer, mean squared error, Adam, fp32. ``voxels``: MONAI's
    network of the same widths and levels on voxels, as the tutorials have it.
    """
    settings = load(TrainSettings, f"train.{dim}")
    seen = framed(settings, subjects, subjects.encoded(), work)
    generator = untrained(dim, settings, subjects, seen, work)
    data = seen.residuals(generator.prior, subjects.conditions, work / dim)
    images = settings.loop.batch * (settings.loop.slices if dim == "2d" else 1)

    def ours() -> float:
        marks: list[float] = []
        fit_steps(
            generator, data, settings, 2 * _TIMED, work / "fit",
            lambda step: marks.append(time.process_time()),
        )  # fmt: skip
        return (marks[1] - marks[0]) / _TIMED / images

    shape = subjects.space.shape[: 2 if dim == "2d" else 3]
    batches = (images,) if dim == "2d" else (1, images)
    runs: dict[str, Callable[[], float]] = {"ours": ours}
    unet = generator.denoiser.network.unet
    for batch in batches:
        packed = torch.zeros(batch, *_packed(generator))
        runs[f"equal network, batch {batch}"] = _plain(deepcopy(unet), packed)
        runs[f"voxels, batch {batch}"] = _plain(
            _on_voxels(settings, len(shape)), torch.zeros(batch, 2, *shape)
        )
    found = interleaved(runs, rounds)
    return {
        "batch_of_ours": images,
        "cpu_s": {k: summary(v) for k, v in found.items()},
        "over_ours": {k: ratio(v, found["ours"]) for k, v in found.items() if k != "ours"},
    }


def _timed(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def _network_inputs(generator: Generator) -> tuple[Any, ...]:
    """What the network is given when a pair of volumes is sampled."""
    seen: list[tuple[Any, ...]] = []
    hook = generator.denoiser.network.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs)
    )
    generator.sample(_PEOPLE, (1, 2), 1)
    hook.remove()
    return seen[0]


def _packed(generator: Generator) -> tuple[int, ...]:
    """Channels and sides of what MONAI's network inside of ours is given."""
    seen: list[tuple[int, ...]] = []
    hook = generator.denoiser.network.unet.register_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape[1:]))
    )
    generator.sample(_PEOPLE, (1, 2), 1)
    hook.remove()
    return seen[0]


def _on_voxels(settings: TrainSettings, dims: int) -> nn.Module:
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    config = settings.network
    levels = len(config.channels)
    unet: nn.Module = DiffusionModelUNet(
        spatial_dims=dims,
        in_channels=2,
        out_channels=2,
        channels=config.channels,
        num_res_blocks=config.res_blocks,
        attention_levels=[config.attention and i == levels - 1 for i in range(levels)],
        norm_num_groups=8,
        num_head_channels=32,
    )
    return unet


def _plain(unet: nn.Module, images: Tensor) -> Callable[[], float]:
    """A tutorial's training step: CPU seconds per image."""
    from monai.networks.schedulers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=STEPS)
    for parameter in unet.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(unet.parameters(), lr=2.5e-5)
    labels = torch.zeros(len(images), 3 if images.ndim == 4 else 2)
    conditional = getattr(unet, "num_class_embeds", None) is not None

    def step() -> None:
        eps = torch.randn_like(images)
        t = torch.randint(0, STEPS, (len(images),))
        optimizer.zero_grad(set_to_none=True)
        noisy = scheduler.add_noise(original_samples=images, noise=eps, timesteps=t)
        # The inferer passes no class labels on; the rest of what it does is this.
        made = unet(noisy, timesteps=t, class_labels=labels if conditional else None)
        loss = nn.functional.mse_loss(made, eps[:, : made.shape[1]])
        torch.autograd.backward(loss)
        optimizer.step()

    def run() -> float:
        begun = time.process_time()
        for _ in range(_TIMED):
            step()
        return (time.process_time() - begun) / _TIMED / len(images)

    return run
