"""What two trainings on one machine cost each other: `python -m benchmarks.neighbours`.

Each round measures the steps per second of a small 3D training alone, then of two side by side,
in processes of their own, so that a slow minute of the machine meets both. The ratio is the steps
of both together over the steps of one alone: 1 where they only share the processor, and far less
where the threads of one spin while the other would work. `OMP_WAIT_POLICY` decides that; set it to
ACTIVE to see the difference.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

import click

from benchmarks import result
from contracts.console import command, say

# Six convolutions on a quarter of the volume at 4 mm, as the blocks of a small network.
CHANNELS, LAYERS, SHAPE, BATCH = 16, 6, (20, 24, 20), 2
_WARM_UP = 3


def train(seconds: float) -> float:
    """Return the steps per second of a training in this process.

    It prints a line when it is ready, and begins when it reads one.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    widths = [1, *[CHANNELS] * (LAYERS - 1), 1]
    network = nn.Sequential(*(nn.Conv3d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths)))
    optimizer = torch.optim.Adam(network.parameters())
    volumes = torch.randn(BATCH, 1, *SHAPE)

    def step() -> None:
        optimizer.zero_grad()
        (network(volumes) - volumes).square().mean().backward()
        optimizer.step()

    for _ in range(_WARM_UP):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    begun, steps = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        steps += 1
    return steps / (time.perf_counter() - begun)


def side_by_side(count: int, seconds: float) -> list[float]:
    """Return the steps per second of each of some trainings that run at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.neighbours", "--member", "--seconds", str(seconds)],
            cwd=result.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in started:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a training ended before it began")
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [float(process.communicate()[0]) for process in started]


def measure(rounds: int, seconds: float) -> result.Row:
    """The steps per second of one alone and of both together, and the ratio of the two."""
    alone, together = [], []
    for i in range(rounds):
        alone.append(side_by_side(1, seconds)[0])
        together.append(sum(side_by_side(2, seconds)))
        ratio = together[-1] / alone[-1]
        say(f"round {i + 1}/{rounds}: together {ratio:.2f} of the steps of one alone")
    return {
        "policy": os.environ["OMP_WAIT_POLICY"],
        "alone": result.of_rounds(alone),
        "together": result.of_rounds(together),
        "ratio": result.of_rounds([b / a for a, b in zip(alone, together, strict=True)]),
    }


@command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=float, default=5.0, show_default=True, help="Of each training.")
@click.option("--member", is_flag=True, hidden=True)
def main(rounds: int, seconds: float, member: bool) -> None:
    """Measure one training alone and two side by side, and write results/neighbours.json."""
    from benchmarks import table_definitions

    if member:
        click.echo(train(seconds))
        return
    found = result.write(
        "neighbours",
        [measure(rounds, seconds)],
        n={"rounds": rounds},
        threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        intervals=result.ROUNDS,
    )
    click.echo(table_definitions.TABLES["neighbours"].body(found))


if __name__ == "__main__":
    main()
