"""What training costs as grids and cohorts grow: `python benchmarks/scaling.py`.

Each cell of the table is a process of its own with one thread: preprocessing per volume (making a
brain, encoding, template, prior, residual), one training step of two volumes, one sample of 8
network evaluations, in CPU seconds, and the largest memory that is the process's own. Memory-mapped
pages are the system's: it takes them back when it needs them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

GRIDS = ((24, 24, 24), (40, 48, 40), (64, 72, 64))
COHORTS = (16, 48, 144)
STEPS, REPEATS = 2, 2
_RESULTS = Path(__file__).with_suffix(".json")


class Peak:
    """The largest anonymous memory of this process while it is open, in MiB."""

    def __enter__(self) -> Peak:
        self.mib, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            lines = Path("/proc/self/status").read_text().splitlines()
            held = next(line for line in lines if line.startswith("RssAnon"))
            self.mib = max(self.mib, int(held.split()[1]) / 1024)


def cell(shape: tuple[int, int, int], n: int) -> dict[str, float]:
    """One cell, measured in this process."""
    import torch

    from benchmarks.brains import people, prepare
    from models.config import NetworkConfig
    from training.loop import fit
    from training.settings import LoopSettings

    torch.set_num_threads(1)
    network = NetworkConfig(channels=(16, 32, 64))
    with tempfile.TemporaryDirectory() as folder, Peak() as peak:
        work = Path(folder)
        prepare(8, (16, 16, 16), network, work / "small")  # imports
        begun = time.process_time()
        generator, data = prepare(n, shape, network, work)
        prepared = time.process_time() - begun

        def trained(steps: int) -> float:
            begun = time.process_time()
            fit(
                generator.denoiser,
                list(generator.denoiser.network.parameters()),
                data,
                LoopSettings(steps=steps, batch=2),
                work,
                lambda metrics, step: None,
                lambda step: None,
                "train",
            )
            (work / "checkpoint.pt").unlink()
            return time.process_time() - begun

        trained(1)  # what is set up once
        step = min(trained(1 + STEPS) - trained(1) for _ in range(REPEATS)) / STEPS
        generator.sample(people(2), (1, 2), 1)
        begun = time.process_time()
        generator.sample(people(2), (1, 2), 8)
        sample = (time.process_time() - begun) / 2
    return {
        "voxels": float(shape[0] * shape[1] * shape[2]),
        "subjects": n,
        "prepare_seconds_per_volume": prepared / n,
        "step_seconds": step,
        "sample_seconds": sample,
        "peak_mib": peak.mib,
    }


def main() -> None:
    """Measure all cells, print the table, and keep the results beside this file."""
    if len(sys.argv) > 1:
        x, y, z, n = map(int, sys.argv[1:])
        print(json.dumps(cell((x, y, z), n)))
        return
    results = []
    print(f"{'grid':>12} {'subjects':>8} {'prepare':>8} {'step':>7} {'sample':>7} {'MiB':>6}")
    for shape in GRIDS:
        for n in COHORTS:
            command = [sys.executable, __file__, *map(str, (*shape, n))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            results.append({"grid": shape, **found})
            print(
                f"{'x'.join(map(str, shape)):>12} {n:8d} "
                f"{found['prepare_seconds_per_volume']:8.3f} {found['step_seconds']:7.2f} "
                f"{found['sample_seconds']:7.2f} {found['peak_mib']:6.0f}",
                flush=True,
            )
    content = {"steps": STEPS, "repeats": REPEATS, "unit": "CPU seconds", "cells": results}
    _RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
