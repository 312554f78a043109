"""Our registration beside dipy's, piece by piece: `python benchmarks/registration.py`.

Subjects that the group template was not made from are registered to it by each engine in turn.
Told are CPU seconds of one core and what the displaced template leaves of the subject. Simulated
subjects are those of params.yaml, made at the resolution that is asked for; results of different
resolutions stand side by side in results/registration.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a file: its folder, not the project, leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import click

from benchmarks.engines import CHANNELS, STEPS, Engine, Task, engines
from contracts.console import command, progress, say

if TYPE_CHECKING:
    from training.dataset import Subjects

ROOT = Path(__file__).resolve().parent.parent
# Simulated subjects are kept here.
WORK = Path("data/work/registration")
WIDTH_MM = 4.0
# Registrations of a subject while a template is made: dipy would do each anew, since it cannot
# start from a displacement; ours makes so many Gauss-Newton steps in all of them together.
DIPY_REGISTRATIONS, OUR_STEPS = 5, 4 * 5 + STEPS


def measured(engine: Engine, task: Task) -> dict[str, float]:
    """One registration: its costs, what it leaves, and how smooth the displacement is."""
    import numpy as np
    from models.representation import brain
    from models.warp import pull

    begun = time.process_time()
    shift, inverse = engine(task)
    seconds = time.process_time() - begun
    inside = brain(task.volume.numpy()) & task.mask
    unmoved = task.template[:, ::2, ::2, ::2]
    before = (task.volume - unmoved).numpy()[:, inside].var(axis=1)
    after = (task.volume - pull(task.template, shift)).numpy()[:, inside].var(axis=1)
    slopes = np.stack([np.stack(np.gradient(part)) for part in shift.numpy()])
    matrices = np.moveaxis(slopes, (0, 1), (-2, -1))[task.mask] + np.eye(3)
    if inverse is None:  # by fixed-point iteration, as `models.warp.nearest`
        inverse = -shift
        for _ in range(6):
            inverse = -pull(shift, inverse)
    missed = (inverse + pull(shift, inverse)).square().sum(dim=0).sqrt().numpy()
    return {
        "cpu_s": seconds,
        **{f"left of {k}": float(v) for k, v in zip(CHANNELS, after / before, strict=True)},
        "mean |grad u|": float(np.sqrt(np.square(slopes).sum(axis=(0, 1)))[task.mask].mean()),
        "least Jacobian": float(np.linalg.det(matrices).min()),
        "inverse misses (voxels)": float(missed[task.mask].mean()),
    }


def subjects(resolution: float, count: int, work: Path) -> Subjects:
    """The first subjects of the base group of params.yaml at this resolution, in mm."""
    from cohort.derivatives import Derivatives
    from cohort.derive import Derive, derive
    from cohort.simulate import Simulate, simulate
    from cohort.split import Manifest
    from contracts import params
    from training import dataset

    recipe = params.load(Simulate, "simulate")
    recipe = replace(
        recipe, resolution_mm=resolution, output="maps", base_subjects=count, target_subjects=0
    )
    source = work / "bids" / "derivatives" / "simulated"
    deriving = Derive(str(source), resolution, recipe.max_bvalue)
    simulate(recipe, work / "bids", work)
    derive(deriving, work / "derivatives", work, work / "no-masks")
    ids = tuple(p.id for p in Derivatives.open(work / "derivatives").participants)
    manifest = Manifest(recipe.seed, {"base": {"train": ids, "val": (), "test": ()}})
    (work / "split.json").write_text(json.dumps(manifest.to_json()))
    return dataset.load(work / "derivatives", work / "split.json", "base", "train")


def tasks(known: Subjects, fitted: int) -> tuple[list[Task], float]:
    """The subjects after the first `fitted`, of which the template is made; and what making it
    costs, in CPU seconds per subject."""
    import numpy as np
    import torch
    from models.frame import Frame
    from models.gaussian import design
    from models.template import FINER
    from models.warp import refined

    from models import representation

    encoded, people = known.encoded(), known.conditions
    mask = representation.reach(known.masks[:fitted])
    width = WIDTH_MM / min(known.space.zooms)
    begun = time.process_time()
    frame, _ = Frame.fit(encoded[:fitted], mask, people[:fitted], width=width)
    seconds = (time.process_time() - begun) / fitted
    rows = torch.from_numpy(design(people).astype(np.float32) - frame.centre)
    effects = torch.from_numpy(frame.effects)
    found = []
    for volume, row in zip(encoded[fitted:], rows[fitted:], strict=True):
        template = torch.from_numpy(frame.image) + refined(
            torch.tensordot(row, effects, dims=1), FINER
        )
        inverse_sd = torch.from_numpy(frame.inverse_sd)
        found.append(Task(torch.from_numpy(volume), template, inverse_sd, mask, width))
    return found, seconds


def whole(rows: dict[str, Any], template_s: float) -> dict[str, float]:
    """CPU seconds per subject of making the template: measured with our engine, and what they
    would be with each of dipy's in its place."""
    rest = template_s - OUR_STEPS / STEPS * rows["ours"]["cpu_s"]["median"]
    return {"ours": template_s} | {
        name: rest + DIPY_REGISTRATIONS * row["cpu_s"]["median"]
        for name, row in rows.items()
        if name.startswith("dipy")
    }


def table(report: dict[str, Any]) -> str:
    """Medians [least, most] over subjects or rounds, in Markdown."""

    def cell(found: dict[str, float]) -> str:
        return f"{found['median']:.3g} [{found['least']:.3g}, {found['most']:.3g}]"

    rows = report["registration"]
    heads = ["engine", *rows["ours"]]
    lines = [heads, ["---"] * len(heads)]
    lines += [[name, *map(cell, row.values())] for name, row in rows.items()]
    lines += [[], ["piece", "with", "CPU ms", "over ours", "differs", "inside"], ["---"] * 6]
    for what, found in report["pieces"].items():
        for name, one in found.items():
            milliseconds = {k: 1000 * v for k, v in one["cpu_s"].items()}
            differs = [f"{one[f'largest_difference{k}']:.1e}" for k in ("", "_inside")]
            lines.append([what, name, cell(milliseconds), cell(one["over_ours"]), *differs])
    lines += [[], ["template, per subject", "CPU s"], ["---"] * 2]
    lines += [[name, f"{value:.3g}"] for name, value in report["template_cpu_s"].items()]
    return "\n".join(f"| {' | '.join(line)} |" if line else "" for line in lines)


@command()
@click.option("--resolution", default=4.0, show_default=True, help="Of the subjects, in mm.")
@click.option("--fitted", default=24, show_default=True, help="Subjects that make the template.")
@click.option("--held-out", default=20, show_default=True, help="Subjects that are registered.")
@click.option("--few", is_flag=True, help="Leave out the slow engines.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/registration.json"))
def main(resolution: float, fitted: int, held_out: int, few: bool, out: Path) -> None:
    """Compare registration engines and their pieces on simulated subjects."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks.contest import versions
    from benchmarks.costs import summary
    from benchmarks.interpolation import pieces
    from cohort.simulate import Simulate
    from contracts import params

    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        work = WORK / f"{resolution:g}mm"
        known = subjects(resolution, fitted + held_out, work)
        say("template")
        people, template_s = tasks(known, fitted)
        report: dict[str, Any] = {
            "command": f"python benchmarks/registration.py --resolution {resolution:g} "
            f"--fitted {fitted} --held-out {held_out}" + " --few" * few,
            "commit": commit,
            "seeds": {"cohort": params.load(Simulate, "simulate").seed, "pieces": 0},
            "machine": {**versions(), "threads": 1},
            "n": {"fitted": fitted, "held_out": held_out},
            "pieces": pieces(known.space.shape, WIDTH_MM / resolution),
        }
        runs = {k: run for k, run in engines().items() if not (few and "[20, 20]" in k)}
        found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        for task in progress(people, len(people), "registered"):
            for name, run in runs.items():
                found[name].append(measured(run, task))
    report["registration"] = {
        name: {key: summary([one[key] for one in each]) for key in each[0]}
        for name, each in found.items()
    }
    report["template_cpu_s"] = whole(report["registration"], template_s)
    click.echo(table(report))
    kept = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**kept, f"{resolution:g} mm": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()
