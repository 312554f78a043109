"""Training and sampling at 4 and 2 mm on one GPU, within ten minutes: `python -m benchmarks.gpu`.

Training steps that are computed in several ways, with equal network and batch, in milliseconds and
GPU memory; and the seconds of a sample. `--device cpu --small` runs the same code on small volumes.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import result
from contracts.console import command, say
from contracts.errors import UserError
from models.config import NetworkConfig

if TYPE_CHECKING:
    import torch

    from models.generator import Generator
    from training.dataset import TrainingImages

BUDGET_S = 540.0
WARM, STEPS, SUBJECTS, EVALUATIONS = 3, 10, 8, 16


@dataclass(frozen=True, slots=True)
class Case:
    """A grid, a network and a batch."""

    name: str
    shape: tuple[int, int, int]
    network: NetworkConfig
    batch: int


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to compute a training step."""

    name: str
    bf16: bool = True
    recompute: bool = False
    channels_last: bool = False
    compile: bool = False


LARGE = NetworkConfig(channels=(64, 128, 256), res_blocks=2)
CASES = (Case("2 mm", (80, 96, 80), LARGE, 4), Case("4 mm", (40, 48, 40), LARGE, 16))
SMALL = (Case("small", (16, 16, 16), NetworkConfig(channels=(16, 32)), 2),)
# Variants that may not fit into memory, or into the time, come last.
VARIANTS = (
    Variant("bf16"),
    Variant("bf16, recomputed", recompute=True),
    Variant("bf16, channels last", channels_last=True),
    Variant("fp32", bf16=False),
    Variant("bf16, compiled", compile=True),
    Variant("bf16, compiled, channels last", compile=True, channels_last=True),
)


class Clock:
    """Seconds since it was made; it waits for all work that the device was given."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._begun = device, time.perf_counter()

    def __call__(self) -> float:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - self._begun


def train(
    case: Case, variant: Variant, generator: Generator, data: TrainingImages, clock: Clock
) -> result.Row:
    """Milliseconds per step and GiB of one variant."""
    import torch

    from models.diffusion.loss import TrainingLoss
    from training.batch import training_batch
    from training.settings import LoopSettings

    device = clock._device
    denoiser = copy.deepcopy(generator.denoiser).to(device).train()
    if variant.channels_last:
        denoiser.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    denoiser.network.recompute(variant.recompute)
    objective: Callable[..., Any] = TrainingLoss(denoiser)
    if variant.compile:
        torch._dynamo.reset()
        objective = torch.compile(objective, dynamic=False)
    optimizer = torch.optim.AdamW(denoiser.network.parameters(), lr=1e-4)
    settings = LoopSettings(steps=1, batch=case.batch)
    batch = training_batch(data, denoiser, settings, 0, 0, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    seconds, begun = [], clock()
    for step in range(WARM + STEPS):
        before = clock()
        with torch.autocast(device.type, torch.bfloat16, enabled=variant.bf16):
            error, count = objective(*batch)
        (error / count).backward()
        optimizer.step()
        optimizer.zero_grad()
        if step >= WARM:
            seconds.append(clock() - before)
    found = {
        "measure": "training step",
        "case": case.name,
        "variant": variant.name,
        "batch": case.batch,
        "step_ms": result.of_rounds([1000 * s for s in seconds]),
        "first_steps_seconds": clock() - begun - sum(seconds),
    }
    if device.type == "cuda":
        found["gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def sample(case: Case, generator: Generator, clock: Clock) -> result.Row:
    """Seconds per volume, two at a time as `Generator.sample` draws them."""
    from benchmarks.brains import people

    generator.denoiser.to(clock._device)
    generator.sample(people(2), (1, 2), EVALUATIONS)
    seconds = []
    for _ in range(3):
        before = clock()
        generator.sample(people(2), (1, 2), EVALUATIONS)
        seconds.append((clock() - before) / 2)
    generator.denoiser.to("cpu")
    return {
        "measure": "sampling",
        "case": case.name,
        "evaluations": EVALUATIONS,
        "sample_s": result.of_rounds(seconds),
    }


def measure(cases: tuple[Case, ...], device: torch.device) -> list[result.Row]:
    """All cases and variants that the time allows; of the others, why they were left out."""
    import torch

    from benchmarks.brains import prepare

    clock = Clock(device)
    rows: list[result.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        ready = [
            (case, *prepare(SUBJECTS, case.shape, case.network, Path(folder) / case.name))
            for case in cases
        ]
        for case, generator, _ in ready:
            say(f"{case.name}: sampling")
            rows.append(sample(case, generator, clock))
        for variant in VARIANTS:
            for case, generator, data in ready:
                say(f"{case.name}: training steps, {variant.name}")
                why = ""
                if variant.compile and device.type == "cpu":
                    why = "not on a CPU"
                elif clock() > BUDGET_S:
                    why = "no time left"
                else:
                    try:
                        rows.append(train(case, variant, generator, data, clock))
                    except torch.OutOfMemoryError:
                        why = "out of memory"
                if why:
                    rows.append({
                        "measure": "training step",
                        "case": case.name,
                        "variant": variant.name,
                        "batch": case.batch,
                        "left_out": why,
                    })  # fmt: skip
    return rows


@command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--small", is_flag=True, help="Small volumes, nothing is written: does the code run?")
def main(device: str, small: bool) -> None:
    """Measure training steps and samples on a GPU, and write results/gpu.json."""
    import torch

    from benchmarks import table_definitions as tables

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device here: run this on a machine with an NVIDIA GPU")
    rows = measure(SMALL if small else CASES, torch.device(device))
    for columns, kind in ((tables.GPU_STEPS, "training step"), (tables.GPU_SAMPLES, "sampling")):
        shown = [row for row in rows if row["measure"] == kind]
        click.echo(tables.markdown(columns, shown) + "\n")
    if not small:
        result.write(
            "gpu",
            rows,
            n={"steps": STEPS},
            threads=torch.get_num_threads(),
            intervals=result.ROUNDS,
            gpu=torch.cuda.get_device_name() if device == "cuda" else "",
        )


if __name__ == "__main__":
    main()
