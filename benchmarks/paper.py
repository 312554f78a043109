"""What large cohorts would cost, on paper: `python -m benchmarks.paper`.

Floating-point operations are counted on the networks themselves, preparation is what
`benchmarks.scaling` measured on its largest grid, disk space follows from the arrays. The speed of
the GPU is an assumption (`--tflops`), to be replaced by what `benchmarks.gpu` measures.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks import result
from benchmarks.gpu import CASES, Case
from contracts.console import command
from contracts.errors import UserError
from models.config import NetworkConfig

COHORTS = (650, 40_000)
NETWORKS = (
    CASES[0],
    Case("4 mm, params.yaml", (40, 48, 40), NetworkConfig(channels=(16, 32, 64)), 2),
)
# FA and MD; encoded volumes also have the distance to the boundary.
_MAPS = 2
_ENCODED = _MAPS + 1
_DISPLACEMENTS = 3
# The network sees the noisy maps, their Gaussian estimate and what is expected.
_INPUTS = 2 * _MAPS + _ENCODED
# Encoded volumes are kept; displacements are kept with the template, and with the training images
# for as long as the training.
DISK_BYTES = 4 * (_ENCODED + 2 * _DISPLACEMENTS + _MAPS + _ENCODED)
# A training step is a forward pass and a backward pass, which is two forward passes.
_PASSES = 3


def operations(case: Case) -> tuple[float, int]:
    """TFLOP of one evaluation of one volume, and the number of parameters; nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from models.diffusion.network import ConditionedUNet

    with torch.device("meta"):
        network = ConditionedUNet(3, _INPUTS, _MAPS, 2, case.network)
        volume = torch.zeros(1, _INPUTS, *case.shape)
        with FlopCounterMode(display=False) as counter:
            network(volume, torch.zeros(1), torch.zeros(1, 2))
    return counter.get_total_flops() / 1e12, sum(p.numel() for p in network.parameters())


def preparation(folder: Path | None = None) -> float:
    """Measured CPU seconds of encoding, template, prior and residual per voxel and subject.

    Raises
    ------
    UserError : if `benchmarks.scaling` has not run.
    """
    found = result.read("scaling", folder)
    if found is None:
        raise UserError(
            f"no scaling.json in {folder or result.RESULTS}: run "
            "`python -m benchmarks.scaling` first"
        )
    most = max(found.rows, key=lambda row: (row["voxels"], row["subjects"]))
    return float(most["prepare_seconds_per_volume"] / most["voxels"])


@command()
@click.option("--tflops", default=40.0, show_default=True, help="Assumed, sustained, bf16.")
@click.option("--steps", default=50_000, show_default=True, help="Of training.")
def main(tflops: float, steps: int) -> None:
    """Disk, preparation and training of the 3D generator for large cohorts."""
    from benchmarks import table_definitions

    per_voxel = preparation()
    rows = []
    for case in NETWORKS:
        work, parameters = operations(case)
        x, y, z = case.shape
        for n in COHORTS:
            values = x * y * z * n
            rows.append({
                "grid": f"{case.name}, batch {case.batch}",
                "parameters": parameters,
                "tflop": work,
                "subjects": n,
                "disk_bytes": values * DISK_BYTES,
                "preparation_hours": values * per_voxel / 3600,
                "gpu_hours": _PASSES * work * case.batch * steps / tflops / 3600,
                "seen": case.batch * steps / n,
            })  # fmt: skip
    found = result.write(
        "paper", rows, n={"steps": steps, "TFLOP/s assumed": round(tflops)}, threads=1
    )
    click.echo(table_definitions.TABLES["paper"].body(found))


if __name__ == "__main__":
    main()
