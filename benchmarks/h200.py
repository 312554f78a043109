"""Training and sampling at 4 and 2 mm on one GPU, within ten minutes: `python benchmarks/h200.py`.

The variants of a training step at equal network and batch, each as milliseconds per step and GPU
memory, and the seconds of a sample. `--device cpu --small` runs the same code on small volumes.
"""

from __future__ import annotations

import copy
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from contracts.console import command, say
from contracts.errors import UserError
from models.config import NetworkConfig

if TYPE_CHECKING:
    import torch

    from models.generator import Generator
    from training.dataset import Residuals

BUDGET_S = 540.0
WARM, STEPS, SUBJECTS, EVALUATIONS = 3, 10, 8, 16
_RESULTS = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, slots=True)
class Case:
    """A grid, a network and a batch."""

    name: str
    shape: tuple[int, int, int]
    network: NetworkConfig
    batch: int


@dataclass(frozen=True, slots=True)
class Variant:
    """How a step is computed."""

    name: str
    bf16: bool = True
    recompute: bool = False
    channels_last: bool = False
    compile: bool = False


LARGE = NetworkConfig(channels=(64, 128, 256), res_blocks=2)
CASES = (Case("2 mm", (80, 96, 80), LARGE, 4), Case("4 mm", (40, 48, 40), LARGE, 16))
SMALL = (Case("small", (16, 16, 16), NetworkConfig(channels=(16, 32)), 2),)
# What may not fit, or may not end in time, comes last.
VARIANTS = (
    Variant("bf16"),
    Variant("bf16, recomputed", recompute=True),
    Variant("bf16, channels last", channels_last=True),
    Variant("fp32", bf16=False),
    Variant("bf16, compiled", compile=True),
    Variant("bf16, compiled, channels last", compile=True, channels_last=True),
)


class Clock:
    """Seconds since the start, all of the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._begun = device, time.perf_counter()

    def __call__(self) -> float:
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - self._begun


def train(
    case: Case, variant: Variant, generator: Generator, data: Residuals, clock: Clock
) -> dict[str, Any]:
    """Milliseconds per step (median, least, most) and GiB, of one variant."""
    import torch

    from training.loop import _batch, _Objective
    from training.settings import LoopSettings

    device = clock._device
    denoiser = copy.deepcopy(generator.denoiser).to(device).train()
    if variant.channels_last:
        denoiser.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    denoiser.network.recompute(variant.recompute)
    objective: Callable[..., Any] = _Objective(denoiser)
    if variant.compile:
        torch._dynamo.reset()
        objective = torch.compile(objective, dynamic=False)
    optimizer = torch.optim.AdamW(denoiser.network.parameters(), lr=1e-4)
    settings = LoopSettings(steps=1, batch=case.batch)
    batch = _batch(data, denoiser, settings, 0, 0, device)
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
    seconds.sort()
    found = {
        "case": case.name,
        "variant": variant.name,
        "batch": case.batch,
        "steps": STEPS,
        "ms_median": 1000 * seconds[STEPS // 2],
        "ms_least": 1000 * seconds[0],
        "ms_most": 1000 * seconds[-1],
        "first_steps_seconds": clock() - begun - sum(seconds),
    }
    if device.type == "cuda":
        found["gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return found


def sample(case: Case, generator: Generator, clock: Clock) -> dict[str, Any]:
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
        "case": case.name,
        "evaluations": EVALUATIONS,
        "seconds_median": sorted(seconds)[1],
        "seconds_least": min(seconds),
        "seconds_most": max(seconds),
    }


def measure(cases: tuple[Case, ...], device: torch.device) -> dict[str, Any]:
    """All cases and variants that the time allows."""
    import torch

    from benchmarks.brains import prepare

    clock = Clock(device)
    steps: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        ready = [
            (case, *prepare(SUBJECTS, case.shape, case.network, Path(folder) / case.name))
            for case in cases
        ]
        for case, generator, _ in ready:
            samples.append(sample(case, generator, clock))
            say(json.dumps(samples[-1]))
        for variant in VARIANTS:
            for case, generator, data in ready:
                what = f"{case.name}, {variant.name}"
                if (variant.compile and device.type == "cpu") or clock() > BUDGET_S:
                    left_out.append(what)
                    continue
                try:
                    steps.append(train(case, variant, generator, data, clock))
                    say(json.dumps(steps[-1]))
                except torch.OutOfMemoryError:
                    left_out.append(f"{what}: out of memory")
    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "CPU",
        "torch": torch.__version__,
        "seconds": clock(),
        "parameters": {
            case.name: sum(p.numel() for p in generator.denoiser.network.parameters())
            for case, generator, _ in ready
        },
        "steps": steps,
        "samples": samples,
        "left_out": left_out,
    }


@command()
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--small", is_flag=True, help="Small volumes: whether the code runs.")
@click.option("--out", type=click.Path(path_type=Path), default=_RESULTS, show_default=True)
def main(device: str, small: bool, out: Path) -> None:
    """Measure, print, and keep the results."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device here: run this on a machine with an NVIDIA GPU")
    results = measure(SMALL if small else CASES, torch.device(device))
    out.write_text(json.dumps(results, indent=2) + "\n")
    click.echo(f"{'':28} {'ms/step':>9} {'GiB':>6}")
    for row in results["steps"]:
        what = f"{row['case']} {row['variant']} x{row['batch']}"
        click.echo(f"{what:34} {row['ms_median']:9.1f} {row.get('gib', float('nan')):6.1f}")
    for row in results["samples"]:
        click.echo(f"{row['case']}: {row['seconds_median']:.2f} s per volume")


if __name__ == "__main__":
    main()
