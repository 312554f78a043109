"""What each way of adapting is worth: `make bench-peft`, that is `python -m benchmarks.peft`.

The base is adapted to a few patients of the target group in every way, with equal steps. Volumes
are compared with patients that nothing was trained on, above all in the regions that the simulated
disease changes, by a truth that no training sees (`cohort.simulation.disease_truth`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from benchmarks import result
from contracts import closure, paths
from contracts.console import command, say
from training.settings import HeldOutSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.patients import Patients
    from contracts.tracking import Run
    from models.config import Dim
    from models.generator import Generator
    from training.adapt_data import AdaptData
    from training.settings import AdaptSettings

# Sampling seeds that the outer objective of one adapter is repeated with, so far apart.
_OBJECTIVE_SEEDS = [1000 * i for i in range(5)]
_HELD_OUT = HeldOutSettings(samples=16, steps=8)
BASE, GAIN, SCRATCH = "base, not adapted", "gain only", "full, from scratch"
METHODS = ("lora", "dora", "svdiff", "difffit", "bitfit", "full")
# Their outer objective is repeated: what separates them has to stand out from its spread.
_REPEATED = (GAIN, "full")


def ways() -> dict[str, dict[str, Any]]:
    """Returns what each row changes of the settings `adapt.<dim>`, by the name of the row.

    All of them fit the site's gain, and all but the first one a shift of the mean.
    """
    shift = {name: {"method": name} for name in ("none", *METHODS)}
    return {GAIN: {"method": "none", "mean_shift": False}, **shift, SCRATCH: {"method": "full"}}


def adapted(
    dim: Dim, settings: AdaptSettings, data: AdaptData, folder: Path, scratch: bool
) -> tuple[Generator, dict[str, Any]]:
    """Adapts the base, and returns the generator and what it cost; finished work is kept.

    Parameters
    ----------
    folder : of this row and seed.
    scratch : whether the network starts from random weights instead of the base's.
    """
    from models.adapters import adapted as adapted_generator
    from models.generator import Generator
    from training.adapt import adapt_generator
    from training.adapt_group import AdaptGroup

    base = _base(dim, folder.parent, scratch, settings.seed)
    record = folder / "costs.json"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        least = HeldOutSettings(samples=2, steps=1)
        generator = Generator.load(base)
        group = AdaptGroup.of(
            generator,
            data,
            settings.site_gain,
            settings.mean_shift,
            paths.WORK,
            folder / "work",
        )
        made = adapt_generator(
            generator,
            folder,
            settings,
            least,
            data,
            group,
            folder / "work",
            cast("Run", _NoRun()),
        )
        costs = {
            "trainable": made.trainable,
            "bytes": made.adapter_bytes,
            "seconds": made.seconds,
            "kept_step": made.kept_step,
        }
        record.write_text(json.dumps(costs))
    costs = json.loads(record.read_text())
    return adapted_generator.load(folder, Generator.load(base)), costs


class _NoRun:
    """Stands for a run of which nothing is kept."""

    def __getattr__(self, name: str) -> Any:
        return lambda *values: None


def _base(dim: Dim, folder: Path, scratch: bool, seed: int) -> Path:
    """Returns the folder of the base, or of one with the same prior and random weights."""
    import torch

    from models.generator import Generator

    base = paths.MODELS / dim / "base"
    if not scratch:
        return base
    untrained = folder / f"untrained-{seed}"
    if not (untrained / "generator.json").exists():
        trained = Generator.load(base)
        torch.manual_seed(seed)
        made = Generator(trained.config, trained.prior)
        # Its zeros would make an adapter refuse the network as one that was never trained.
        for parameter in made.denoiser.network.unet.out.parameters():
            torch.nn.init.normal_(parameter, std=1e-4)
        made.save(untrained)
    return untrained


def rows(dim: Dim, patients: Patients, settings: AdaptSettings, repeats: int, work: Path) -> Any:
    """Yields a row per seed and way, then those of the base and of real validation subjects."""
    import numpy as np

    from models.adapters.method import method
    from models.generator import Generator

    gain = None
    for seed in range(repeats):
        for name, changes in ways().items():
            say(f"{name}, {dim}, seed {seed}")
            chosen = replace(settings, **changes, seed=seed)
            if chosen.method != settings.method:
                chosen = replace(chosen, settings={}, learning_rate=None)
            folder = work / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
            generator, costs = adapted(dim, chosen, patients.data, folder, name == SCRATCH)
            volumes = _kept(folder / "volumes.npy", partial(patients.samples, generator))
            if name == GAIN:
                gain = volumes
            rate = chosen.learning_rate or method(chosen.method, chosen.settings).learning_rate
            row = {"name": name, "seed": seed, "learning_rate": rate, **costs}
            row["scores"] = patients.scores(volumes, None if name == GAIN else gain)
            if name in _REPEATED and seed == 0:
                row["objective"] = _kept(
                    folder / "objective.npy", partial(_objective, patients, generator)
                ).tolist()
            yield row
    base = Generator.load(paths.MODELS / dim / "base")
    volumes = _kept(work / "base.npy", partial(patients.samples, base))
    yield {"name": BASE, "seed": 0, "scores": patients.scores(volumes, gain)}
    real = patients.data.val.volumes
    yield {"name": "real patients", "seed": 0, "scores": patients.scores(real, np.array(gain))}


def _objective(patients: Patients, generator: Generator) -> NDArray[np.float64]:
    """Returns the outer objective of one generator with several sampling seeds."""
    import numpy as np

    found = [patients.data.score(generator, _HELD_OUT, seed) for seed in _OBJECTIVE_SEEDS]
    return np.array([one.regional_distance for one in found])


def _kept(path: Path, make: Callable[[], Any]) -> Any:
    """Returns an array, from a file if it was made before."""
    import numpy as np

    if not path.exists():
        np.save(path, make())
    return np.load(path)


def summarised(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row per way: the median, the least and the most of its trainings."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in found:
        groups.setdefault(row["name"], []).append(row)
    order = [BASE, *(name for name in groups if name != BASE)]
    summary = []
    for name in order:
        group = groups[name]
        scores = {
            key: result.of_rounds([row["scores"][key] for row in group])
            for key in group[0]["scores"]
        }
        row = {**group[0], "scores": scores, "trainings": len(group)}
        for key in ("seconds", "kept_step"):
            values = [one[key] for one in group if one.get(key) is not None]
            row[key] = result.of_rounds(values) if values else None
        if "objective" in row:
            row["objective"] = result.of_rounds(row["objective"])
        del row["seed"]
        summary.append(row)
    return summary


@command()
@click.option("--dim", type=click.Choice(["2d", "3d"]), default="3d", show_default=True)
@click.option("--subjects", default=16, show_default=True, help="Patients that adapt the base.")
@click.option("--repeats", default=3, show_default=True, help="Trainings, seeds 0, 1, ...")
@click.option(
    "--truth",
    type=click.Path(path_type=Path),
    default=paths.BIDS / "derivatives/simulated/disease_effect.tsv",
    show_default=True,
    help="Table of the true differences.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=paths.WORK / "peft",
    show_default=True,
    help="What was finished; delete it to start anew.",
)
def main(dim: Dim, subjects: int, repeats: int, truth: Path, work: Path) -> None:
    """Adapt the base to a few patients in every way, and write results/peft-DIM.json."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import table_definitions
    from benchmarks.patients import Patients
    from contracts.params import load
    from models.generator import Generator
    from training.settings import AdaptSettings

    settings = load(AdaptSettings, f"adapt.{dim}")
    patients = Patients.load(subjects, truth)
    content = (
        closure.digest("benchmarks.peft"), patients.data.train.digest, patients.others.digest,
        Generator.load(paths.MODELS / dim / "base").digest, asdict(settings),
    )  # fmt: skip
    work = work / f"{dim}-{hashlib.sha256(repr(content).encode()).hexdigest()[:12]}"
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = summarised(list(rows(dim, patients, settings, repeats, work)))
    n = {
        "training patients": len(patients.data.train.ids),
        "other patients": len(patients.others.ids),
        "volumes each": len(patients.others.ids),
        "changed regions": int(patients.changed.sum()),
        "steps": settings.steps,
    }
    result.write(f"peft-{dim}", found, n=n, seeds=range(repeats), intervals=result.ROUNDS)
    click.echo(table_definitions.markdown(table_definitions.PEFT, found))


if __name__ == "__main__":
    main()
