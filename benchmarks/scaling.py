"""What training costs as grids and cohorts grow: `python -m benchmarks.scaling`.

Each row is a process of its own with one thread. It measures, in CPU seconds, the preparation per
subject (making a brain, encoding, template, prior, residual), one training step of two volumes and
one sample of 8 network evaluations; and the largest memory that is the process's own. Pages of
memory-mapped files are left out: the system takes them back when it needs them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from benchmarks import result
from contracts.console import command, progress

GRIDS = ((24, 24, 24), (40, 48, 40), (64, 72, 64))
COHORTS = (16, 48, 144)
STEPS, REPEATS = 2, 2


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


def measure(shape: tuple[int, int, int], n: int) -> result.Row:
    """One row, measured in this process."""
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

        trained(1)  # the first run also sets up what is made once
        step = min(trained(1 + STEPS) - trained(1) for _ in range(REPEATS)) / STEPS
        generator.sample(people(2), (1, 2), 1)
        begun = time.process_time()
        generator.sample(people(2), (1, 2), 8)
        sample = (time.process_time() - begun) / 2
    return {
        "grid": " x ".join(map(str, shape)),
        "voxels": shape[0] * shape[1] * shape[2],
        "subjects": n,
        "prepare_seconds_per_volume": prepared / n,
        "step_seconds": step,
        "sample_seconds": sample,
        "peak_mib": peak.mib,
    }


@command()
@click.option("--row", type=int, nargs=4, help="Only this one, as JSON: X Y Z SUBJECTS.")
def main(row: tuple[int, int, int, int] | None) -> None:
    """Measure all grids and numbers of subjects, and write results/scaling.json."""
    from benchmarks import table_definitions

    if row:
        x, y, z, n = row
        click.echo(json.dumps(measure((x, y, z), n)))
        return
    wanted = [(*shape, n) for shape in GRIDS for n in COHORTS]
    rows = []
    for each in progress(wanted, len(wanted), "grids and cohorts"):
        program = [sys.executable, "-m", "benchmarks.scaling", "--row", *map(str, each)]
        done = subprocess.run(
            program, cwd=result.ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    found = result.write("scaling", rows, n={"steps": STEPS, "repeats": REPEATS}, threads=1)
    click.echo(table_definitions.TABLES["scaling"].body(found))


if __name__ == "__main__":
    main()
