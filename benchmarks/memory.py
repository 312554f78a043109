"""What training and adapting take of memory and time, by method: `python -m benchmarks.memory`.

Each row's memory is a process of its own: the growth of its resident memory over what it has after
a small training and with the base loaded. It runs with blocks of malloc that go back to the system
when they are freed, so that the growth is of tensors in use and not of gaps between them. Beside it
stands what `training.memory` tells from shapes. Steps are CPU seconds, in rounds.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from benchmarks import result
from benchmarks.costs import interleaved, ratio
from contracts.console import command, progress
from contracts.params import load
from contracts.space import Space, mni_space
from models.config import Dim, NetworkConfig
from training.settings import LoopSettings, TrainSettings

if TYPE_CHECKING:
    from training.stand_in import Training

METHODS = ("full", "bitfit", "lora", "dora", "svdiff", "difffit")
GRIDS = (4.0, 2.0)
STEPS, ROUNDS = 3, 5
_MIB = 2**20
# Freed blocks above this size go back to the system.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
# The least grid that the networks of params.yaml can halve.
_SMALL = Space("small", (16, 16, 16), mni_space(4.0).affine)


def peak(dim: Dim, space: Space, name: str, settings: TrainSettings) -> result.Row:
    """The peak of one training in this process and what shapes tell of it, in MiB."""
    import torch

    from training.memory import need
    from training.stand_in import training

    torch.set_num_threads(1)
    _run(training(dim, _SMALL, settings.network, name), settings.loop)  # sets up libraries
    ready = training(dim, space, settings.network)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is resident now
    before = _status("VmRSS")
    loaded = _loaded(ready)
    ready = ready.adapted(name)
    own = _loaded(ready) - loaded
    _run(ready, settings.loop)
    grown = _status("VmHWM") - before
    told = need(ready.loss, ready.trainable, settings.loop, bf16=False)
    return {"peak_mib": grown, "told_mib": (told.growth + own) / _MIB}


def steps(
    dim: Dim, space: Space, network: NetworkConfig, loop: LoopSettings, rounds: int
) -> dict[str, dict[str, float]]:
    """A step of each method over one of full fine-tuning that computes as much again."""
    from training.stand_in import training

    runs = {name: _step(training(dim, space, network, name), loop) for name in METHODS}
    found = interleaved(runs, rounds)
    return {name: ratio(seconds, found["full"]) for name, seconds in found.items()}


@command()
@click.option("--row", help="Only this peak, as JSON: DIM,MM,METHOD,RECOMPUTE (0 or 1).")
@click.option("--no-time", is_flag=True, help="Memory only, which other work does not change.")
def main(row: str | None, no_time: bool) -> None:
    """Measure all methods at 4 and 2 mm, and write results/memory.json."""
    from benchmarks import table_definitions

    if row:
        given = row.split(",")
        one = cast(Dim, given[0])
        space, settings = mni_space(float(given[1])), _settings(one, given[3] == "1")
        click.echo(json.dumps(peak(one, space, given[2], settings)))
        return
    dims: tuple[Dim, ...] = ("2d", "3d")
    wanted = [
        (dim, mm, name, on)
        for dim in dims
        for mm in GRIDS
        for name in METHODS
        for on in ((False, True) if name == "full" else (True,))
    ]
    rows: list[result.Row] = []
    for dim, mm, name, on in progress(wanted, len(wanted), "trainings"):
        program = [
            sys.executable,
            "-m",
            "benchmarks.memory",
            "--row",
            f"{dim},{mm:g},{name},{on:d}",
        ]
        done = subprocess.run(
            program,
            cwd=result.ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={**os.environ, **_ENVIRONMENT},
        )
        found = json.loads(done.stdout.splitlines()[-1])
        rows.append({"dim": dim, "mm": mm, "method": name, "recompute": "yes" if on else "no"})
        rows[-1] |= found | {"told_over_peak": found["told_mib"] / found["peak_mib"]}
        plain = next(r for r in rows if (r["dim"], r["mm"], r["recompute"]) == (dim, mm, "no"))
        rows[-1]["of_full"] = found["peak_mib"] / plain["peak_mib"]
    if not no_time:
        for dim in dims:
            settings = _settings(dim, True)
            times = steps(dim, mni_space(4.0), settings.network, settings.loop, ROUNDS)
            for each in rows:
                if (each["dim"], each["mm"], each["recompute"]) == (dim, 4.0, "yes"):
                    each["step_of_full"] = times[each["method"]]
    written = result.write(
        "memory", rows, n={"steps": STEPS, "rounds": 0 if no_time else ROUNDS},
        threads=1, intervals=result.ROUNDS,
    )  # fmt: skip
    click.echo(table_definitions.TABLES["memory"].body(written))


def _loaded(ready: Training) -> int:
    """Bytes of all weights and buffers."""
    return sum(t.nbytes for t in (*ready.loss.parameters(), *ready.loss.buffers()))


def _settings(dim: Dim, recompute: bool) -> TrainSettings:
    settings = load(TrainSettings, f"train.{dim}")
    return replace(settings, loop=replace(settings.loop, steps=STEPS, recompute=recompute))


def _run(ready: Training, loop: LoopSettings) -> None:
    from training.loop import fit

    with tempfile.TemporaryDirectory() as folder:
        fit(
            ready.loss.denoiser,
            ready.trainable,
            ready.data,
            loop,
            Path(folder),
            lambda metrics, step: None,
            lambda step: None,
            "memory",
        )


def _step(ready: Training, loop: LoopSettings) -> Callable[[], float]:
    """A step with its optimizer: CPU seconds."""
    import torch

    from training.batch import training_batch

    denoiser = ready.loss.denoiser
    denoiser.network.recompute(loop.recompute)
    for parameter in ready.trainable:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(ready.trainable, lr=1e-5)
    batch = training_batch(ready.data, denoiser, loop, 0, 0, torch.device("cpu"))

    def run() -> float:
        begun = time.process_time()
        error, _ = ready.loss(*batch)
        torch.autograd.backward(error)
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - begun

    return run


def _status(key: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


if __name__ == "__main__":
    main()
