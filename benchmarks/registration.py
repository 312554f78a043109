"""Our registration beside dipy's, piece by piece: `python -m benchmarks.registration`.

Subjects that the group template was not made from are registered to it by each engine in turn.
Measured are CPU seconds of one core, and the variance of the subject less the displaced template
over that without registration. The subjects are simulated as params.yaml says.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.engines import CHANNELS, STEPS, Engine, Task, engines
from contracts import closure
from contracts.console import command, progress, say
from contracts.paths import WORK

if TYPE_CHECKING:
    from cohort.subjects import Subjects

# Simulated subjects are kept here.
KEPT = WORK / "registration"
# Registrations of a subject while a template is made: dipy would do each anew, since it cannot
# start from a displacement; ours makes so many Gauss-Newton steps in all of them together.
DIPY_REGISTRATIONS, OUR_STEPS = 5, 4 * 5 + STEPS


def measured(engine: Engine, task: Task) -> dict[str, float]:
    """One registration: its costs, what it leaves, and how smooth the displacement is."""
    import numpy as np

    from cohort.channels import brain
    from cohort.interpolation import displaced, inverse_displacement

    begun = time.process_time()
    shift, inverse = engine(task)
    seconds = time.process_time() - begun
    inside = brain(task.volume.numpy()) & task.mask
    unmoved = task.template[:, ::2, ::2, ::2]
    before = (task.volume - unmoved).numpy()[:, inside].var(axis=1)
    after = (task.volume - displaced(task.template, shift)).numpy()[:, inside].var(axis=1)
    slopes = np.stack([np.stack(np.gradient(part)) for part in shift.numpy()])
    matrices = np.moveaxis(slopes, (0, 1), (-2, -1))[task.mask] + np.eye(3)
    if inverse is None:
        inverse = inverse_displacement(shift)
    missed = (inverse + displaced(shift, inverse)).square().sum(dim=0).sqrt().numpy()
    return {
        "cpu_seconds": seconds,
        **{f"{k}_left": float(v) for k, v in zip(CHANNELS, after / before, strict=True)},
        "gradient": float(np.sqrt(np.square(slopes).sum(axis=(0, 1)))[task.mask].mean()),
        "least_jacobian": float(np.linalg.det(matrices).min()),
        "inverse_error": float(missed[task.mask].mean()),
    }


def subjects(resolution: float, count: int, work: Path) -> Subjects:
    """The first subjects of the base group of params.yaml at this resolution, in mm."""
    from cohort import subjects as known_subjects
    from cohort.derivatives import Derivatives
    from cohort.derive import DeriveSettings, derive
    from cohort.simulate import SimulateSettings, simulate
    from cohort.split import Manifest
    from contracts import params

    recipe = params.load(SimulateSettings, "simulate")
    recipe = replace(
        recipe, resolution_mm=resolution, output="maps", base_subjects=count, target_subjects=0
    )
    source = work / "bids" / "derivatives" / "simulated"
    deriving = DeriveSettings(str(source), resolution, recipe.max_bvalue)
    simulate(recipe, work / "bids", work)
    derive(deriving, work / "derivatives", work, work / "no-masks")
    ids = tuple(p.id for p in Derivatives.open(work / "derivatives").participants)
    manifest = Manifest(recipe.seed, {"base": {"train": ids, "val": (), "test": ()}})
    (work / "split.json").write_text(json.dumps(manifest.to_json()))
    return known_subjects.load(work / "derivatives", work / "split.json", "base", "train")


def tasks(known: Subjects, fitted: int) -> tuple[list[Task], float]:
    """The subjects after the first `fitted`, of which the template is made; and what making it
    costs, in CPU seconds per subject."""
    import numpy as np
    import torch

    from cohort import channels
    from cohort.group_template import GroupTemplate, smoothing_sigma
    from cohort.interpolation import upsampled
    from cohort.regression import design
    from cohort.template_estimator import FINER

    encoded, people = known.encoded(), known.conditions
    mask = channels.possible_brain(known.masks[:fitted])
    sigma = smoothing_sigma(known.space)
    begun = time.process_time()
    group, _ = GroupTemplate.fit(encoded[:fitted], mask, people[:fitted], sigma)
    seconds = (time.process_time() - begun) / fitted
    rows = torch.from_numpy(design(people).astype(np.float32) - group.centre)
    effects = torch.from_numpy(group.effects)
    found = []
    for volume, row in zip(encoded[fitted:], rows[fitted:], strict=True):
        expected = upsampled(torch.tensordot(row, effects, dims=1), FINER)
        template = torch.from_numpy(group.image) + expected
        inverse_sd = torch.from_numpy(group.inverse_sd)
        found.append(Task(torch.from_numpy(volume), template, inverse_sd, mask, sigma))
    return found, seconds


def whole(seconds: dict[str, float], template_s: float) -> dict[str, float]:
    """CPU seconds per subject of making a template: measured with our engine, and estimated with
    each of dipy's in its place.

    Parameters
    ----------
    seconds : median of one registration, by engine.
    """
    rest = template_s - OUR_STEPS / STEPS * seconds["ours"]
    return {"ours": template_s} | {
        name: rest + DIPY_REGISTRATIONS * one
        for name, one in seconds.items()
        if name.startswith("dipy")
    }


@command()
@click.option("--resolution", default=4.0, show_default=True, help="Of the subjects, in mm.")
@click.option("--fitted", default=24, show_default=True, help="Subjects that make the template.")
@click.option("--held-out", default=20, show_default=True, help="Subjects that are registered.")
def main(resolution: float, fitted: int, held_out: int) -> None:
    """Compare registration engines on simulated subjects, and write results/registration.json."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import table_definitions
    from benchmarks.result import of_rounds, write
    from cohort.simulate import SimulateSettings
    from contracts import params

    torch.set_num_threads(1)
    with threadpool_limits(1):
        code = closure.digest("cohort.simulate", "cohort.derive")
        known = subjects(resolution, fitted + held_out, KEPT / f"{resolution:g}mm-{code}")
        say("template")
        people, template_s = tasks(known, fitted)
        runs = engines()
        found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
        for task in progress(people, len(people), "registered"):
            for name, run in runs.items():
                found[name].append(measured(run, task))
    rows: list[dict[str, Any]] = [
        {"engine": name, **{key: of_rounds([one[key] for one in each]) for key in each[0]}}
        for name, each in found.items()
    ]
    seconds = {row["engine"]: float(row["cpu_seconds"]["value"]) for row in rows}
    for row in rows:
        row["template_cpu_seconds"] = whole(seconds, template_s).get(row["engine"])
    kept = write(
        "registration",
        rows,
        n={"subjects of the template": fitted, "registered subjects": held_out},
        seeds=[params.load(SimulateSettings, "simulate").seed],
        intervals="least and most of the subjects",
    )
    click.echo(table_definitions.TABLES["registration"].body(kept))


if __name__ == "__main__":
    main()
