"""What a sample and a training step cost, ours beside MONAI's: `python -m benchmarks.costs`.

Everything is CPU seconds of one core, measured in rounds: each round runs every variant once, so
that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import contest, result
from contracts.condition import Condition
from contracts.console import command, say
from contracts.errors import UserError
from contracts.params import load
from contracts.paths import WORK
from models.config import Dim
from training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cohort.subjects import Subjects
    from models.generator import Generator

ROUNDS = 5
EVALUATIONS = (16, 8, 4)
_PEOPLE = (Condition(30.0, "F"), Condition(70.0, "M"))
_TIMED = 4
_DIMS: tuple[Dim, ...] = ("2d", "3d")


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each run returns, in rounds A B C A B C, after a first round that does not count."""
    for run in runs.values():
        run()
    out: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            out[name].append(run())
    return out


def ratio(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """First over second, round by round."""
    return result.of_rounds([a / b for a, b in zip(first, second, strict=True)])


def sampling(dim: Dim, subjects: Subjects, work: Path, rounds: int = ROUNDS) -> list[result.Row]:
    """A volume at 16, 8 and 4 evaluations against a DDPM's 1000 evaluations of the same network.

    What a DDPM does between the evaluations is not counted, and an untrained network takes as
    long as a trained one.
    """
    import torch

    from benchmarks.contestants import prepared
    from benchmarks.recipes.diffusion import STEPS

    generator, _ = prepared(dim, load(TrainSettings, f"train.{dim}"), subjects, work)
    inputs = _inputs(generator, generator.denoiser.network)

    def evaluation() -> float:
        with torch.inference_mode():
            return _timed(lambda: generator.denoiser.network(*inputs)) / len(_PEOPLE)

    def sample(steps: int) -> Callable[[], float]:
        return lambda: _timed(lambda: generator.sample(_PEOPLE, (1, 2), steps)) / len(_PEOPLE)

    runs: dict[str, Callable[[], float]] = {str(n): sample(n) for n in EVALUATIONS}
    found = interleaved({"network": evaluation, **runs}, rounds)
    thousand = [STEPS * s for s in found["network"]]
    return [
        {
            "measure": "sampling",
            "dim": dim,
            "evaluations": n,
            "sample_cpu_s": result.of_rounds(found[str(n)]),
            "thousand_over_sample": ratio(thousand, found[str(n)]),
        }
        for n in EVALUATIONS
    ]


def training_step(
    dim: Dim, subjects: Subjects, work: Path, rounds: int = ROUNDS
) -> list[result.Row]:
    """One training step of ours against MONAI's plain step, per slice (2D) or cube (3D).

    A plain step is a tutorial's: inferer, mean squared error, Adam, fp32. It trains the very
    network of ours, on inputs of the same size.
    """
    import torch

    from benchmarks.contestants import fit_steps, prepared

    settings = load(TrainSettings, f"train.{dim}")
    generator, seen = prepared(dim, settings, subjects, work)
    data = seen.images(generator.prior, work / dim)
    parts = settings.loop.slices if dim == "2d" else settings.loop.cubes
    if not parts:
        raise UserError(
            f"train.{dim}.loop trains on whole volumes: set slices (2D) or cubes (3D) to measure "
            "the cost of one"
        )
    images = settings.loop.batch * parts

    def ours() -> float:
        marks: list[float] = []
        fit_steps(
            generator, data, settings, 2 * _TIMED, work / "fit",
            lambda step: marks.append(time.process_time()),
        )  # fmt: skip
        return (marks[1] - marks[0]) / _TIMED / images

    unet = generator.denoiser.network.unet
    channels = _inputs(generator, unet)[0].shape[1]
    shape = subjects.space.shape[:2] if dim == "2d" else (settings.loop.cube_edge,) * 3
    plain = {
        batch: _plain(deepcopy(unet), torch.zeros(batch, channels, *shape))
        for batch in ((images,) if dim == "2d" else (1, images))
    }
    found = interleaved({"ours": ours, **{str(batch): run for batch, run in plain.items()}}, rounds)
    return [
        {
            "measure": "training step",
            "dim": dim,
            "batch": batch,
            "monai_cpu_s": result.of_rounds(found[str(batch)]),
            "monai_over_ours": ratio(found[str(batch)], found["ours"]),
        }
        for batch in plain
    ]


@command()
@contest.source_options
def main(source: contest.Source) -> None:
    """Measure what a sample and a training step cost, beside MONAI's."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import table_definitions

    subjects = source.load("train")
    work = WORK / "costs"
    torch.set_num_threads(1)
    rows = []
    with threadpool_limits(1):
        for dim in _DIMS:
            say(f"costs of {dim}: samples, then training steps")
            rows += sampling(dim, subjects, work)
            rows += training_step(dim, subjects, work)
    found = result.write("costs", rows, n={"rounds": ROUNDS}, threads=1, intervals=result.ROUNDS)
    for name in ("sampling-costs", "step-costs"):
        click.echo(table_definitions.TABLES[name].body(found) + "\n")


def _timed(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def _inputs(generator: Generator, module: nn.Module) -> tuple[Any, ...]:
    """What a module of the generator's network is given when a pair of volumes is sampled."""
    seen: list[tuple[Any, ...]] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    generator.sample(_PEOPLE, (1, 2), 1)
    hook.remove()
    return seen[0]


def _plain(unet: nn.Module, images: Tensor) -> Callable[[], float]:
    """A tutorial's training step: CPU seconds per image."""
    import torch
    from monai.networks.schedulers import DDPMScheduler
    from torch import nn

    from benchmarks.recipes.diffusion import STEPS

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


if __name__ == "__main__":
    main()
