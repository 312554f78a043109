"""What a cohort's size would cost, on paper: `python benchmarks/paper.py`, after `scaling.py`.

Floating-point operations are counted on the networks themselves, preparation is measured by
`scaling.py` on its largest grid, disk space follows from the arrays. The speed of the GPU is an
assumption (`--tflops`), to be replaced by what `h200.py` measures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click

from benchmarks.h200 import CASES, Case
from contracts.console import command
from contracts.errors import UserError
from models.config import NetworkConfig

COHORTS = (650, 40_000)
NETWORKS = (
    CASES[0],
    Case("4 mm, params.yaml", (40, 48, 40), NetworkConfig(channels=(16, 32, 64)), 2),
)
# FA, MD and level set, as encoded; the network also sees displacements.
_ENCODED = 3
_CHANNELS = _ENCODED + 3
# Encoded and standard volumes are kept, residuals for as long as the training.
DISK_BYTES = 4 * (_ENCODED + 2 * _CHANNELS)
# A backward pass is two forward passes.
_PASSES = 3
_SCALING = Path(__file__).with_name("scaling.json")


def operations(case: Case) -> tuple[float, int]:
    """TFLOP of one evaluation of one volume, and the number of parameters; nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from models.network import PatchUNet

    with torch.device("meta"):
        network = PatchUNet(3, 4 * _CHANNELS, _CHANNELS, 2, case.network)
        volume = torch.zeros(1, 4 * _CHANNELS, *case.shape)
        with FlopCounterMode(display=False) as counter:
            network(volume, torch.zeros(1), torch.zeros(1, 2))
    return counter.get_total_flops() / 1e12, sum(p.numel() for p in network.parameters())


def preparation(path: Path = _SCALING) -> float:
    """Measured CPU seconds of encoding, template, prior and residual per voxel and subject.

    Raises
    ------
    UserError : if `scaling.py` has not run.
    """
    if not path.exists():
        raise UserError(f"no {path.name}: run `python benchmarks/scaling.py` first")
    cells = json.loads(path.read_text())["cells"]
    most = max(cells, key=lambda cell: (cell["voxels"], cell["subjects"]))
    return float(most["prepare_seconds_per_volume"] / most["voxels"])


@command()
@click.option("--tflops", default=40.0, show_default=True, help="Assumed, sustained, bf16.")
@click.option("--steps", default=50_000, show_default=True, help="Of training.")
def main(tflops: float, steps: int) -> None:
    """Disk, preparation and training of the 3D generator for large cohorts."""
    per_voxel = preparation()
    heads = (
        "grid", "M parameters", "TFLOP per evaluation", "subjects", "disk (GB)",
        "preparation (core hours)", "GPU hours", "each subject is seen",
    )  # fmt: skip
    rows = [heads, ("---",) * len(heads)]
    for case in NETWORKS:
        work, parameters = operations(case)
        x, y, z = case.shape
        hours = _PASSES * work * case.batch * steps / tflops / 3600
        for n in COHORTS:
            values = x * y * z * n
            rows.append((
                case.name,
                f"{parameters / 1e6:.1f}",
                f"{work:.3f}",
                f"{n}",
                f"{values * DISK_BYTES / 1e9:.0f}",
                f"{values * per_voxel / 3600:.1f}",
                f"{hours:.2f}",
                f"{case.batch * steps / n:.0f} times",
            ))  # fmt: skip
    for row in rows:
        click.echo(f"| {' | '.join(row)} |")
    click.echo(
        f"\n{steps} steps of {', '.join(f'{c.batch} volumes ({c.name})' for c in NETWORKS)}; "
        f"{tflops:g} TFLOP/s assumed; a step costs the same whatever the cohort's size."
    )


if __name__ == "__main__":
    main()
