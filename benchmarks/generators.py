"""Generators compared at equal CPU time: `python benchmarks/generators.py`, part of `make bench`.

Each contestant is trained on the same subjects for the same CPU seconds of one core, samples
volumes of the same ages and sexes, and meets the same judge. What was finished is kept in a work
folder, so that a comparison that was stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__ in (None, ""):  # run as a file: its folder, not the project, leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import click

from contracts.console import command, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant, Sample
    from contracts.condition import Condition
    from training.dataset import Subjects

NAMES = ("ours-2d", "ours-3d", "gaussian", "monai-ddpm-2d", "monai-ddpm-3d", "monai-ldm-3d", "seed")
_EVALUATIONS = (16, 8, 4)
# No stage and no other benchmark samples from these.
_FIRST_SEED = 500_000


def run(
    name: str,
    contestant: Contestant,
    subjects: Subjects,
    conditions: list[Condition],
    seconds: float,
    seed: int,
    evaluations: Sequence[int],
    folder: Path,
) -> list[dict[str, Any]]:
    """Train and sample one contestant, unless its folder says that it was done.

    Returns a row per number of evaluations and per further way to sample; its ``volumes`` is a
    file's name.
    """
    import numpy as np

    from benchmarks.recipes.budget import Budget

    record = folder / "rows.json"
    if record.exists():
        say(f"{name}, seed {seed}: done before")
        rows: list[dict[str, Any]] = json.loads(record.read_text())
        return rows
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{name}, seed {seed}: training")
    begun = time.process_time()
    trained = contestant.train(subjects, Budget(seconds), seed, folder / "work")
    spent = time.process_time() - begun
    ways = [(name, trained.sample, count) for count in evaluations]
    ways += [(f"{name}, {way}", sample, n) for way, (sample, n) in trained.others.items()]
    rows = []
    for way, sample, count in ways:
        say(f"{way}, seed {seed}: sampling at {count} evaluations")
        begun = time.process_time()
        volumes = _sample(sample, conditions, count, f"{way} sampling")
        path = folder / f"volumes-{count}{way.removeprefix(name).replace(', ', '-')}.npy"
        np.save(path, volumes)
        rows.append({
            "name": way,
            "own": contestant.own,
            "seed": seed,
            "evaluations": count if trained.steps else 0,
            "parameters": trained.parameters,
            "steps": trained.steps,
            "digest": trained.digest,
            "train_cpu_s": spent,
            "sample_cpu_s": (time.process_time() - begun) / len(conditions),
            "volumes": str(path),
        })  # fmt: skip
    record.write_text(json.dumps(rows, indent=1))
    return rows


def _sample(sample: Sample, conditions: list[Condition], evaluations: int, what: str) -> Any:
    import numpy as np

    from contracts.console import progress

    pairs = range(0, len(conditions), 2)
    drawn = []
    for i in progress(pairs, len(pairs), what):
        chosen = conditions[i : i + 2]
        seeds = [_FIRST_SEED + i + k for k in range(len(chosen))]
        drawn.append(sample(chosen, seeds, evaluations))
    return np.concatenate(drawn)


def versions() -> dict[str, str]:
    """What the numbers depend on beside the code."""
    from importlib.metadata import version

    model = platform.processor() or platform.machine()
    flags: set[str] = set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            if key.strip() == "flags":
                flags = set(value.split())
    native = sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"})
    return {
        "cpu": model,
        "instructions": " ".join(native),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "monai", "numpy")},
    }


@command()
@click.argument("names", nargs=-1)
@click.option("--seconds", default=400.0, show_default=True, help="CPU seconds of training each.")
@click.option("--samples", default=32, show_default=True, help="Volumes of each.")
@click.option("--repeats", default=1, show_default=True, help="Trainings, seeds 0, 1, ...")
@click.option(
    "--evaluations",
    multiple=True,
    default=_EVALUATIONS,
    show_default=True,
    help="Network evaluations per volume of ours, each in turn.",
)
@click.option(
    "--peer-evaluations",
    default=25,
    show_default=True,
    help="Network evaluations per volume of a peer: DDIM; 1000 is its own DDPM.",
)
@click.option("--tutorial-width", is_flag=True, help="Pixel networks as wide as the tutorials'.")
@click.option(
    "--newcomers",
    default=0,
    help="Simulate so many new people and judge beside them, not beside the test part.",
)
@click.option("--costs/--no-costs", default=True, help="Also what samples and steps cost.")
@click.option("--derivatives", type=click.Path(path_type=Path), default=Path("data/derivatives"))
@click.option("--split", type=click.Path(path_type=Path), default=Path("data/split.json"))
@click.option("--group", default="base", show_default=True)
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    default=Path("data/work/generators"),
    show_default=True,
    help="What was finished; delete it to start anew.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: benchmarks/generators-<seconds>.json."
)
def main(
    names: tuple[str, ...],
    seconds: float,
    samples: int,
    repeats: int,
    evaluations: tuple[int, ...],
    peer_evaluations: int,
    tutorial_width: bool,
    newcomers: int,
    costs: bool,
    derivatives: Path,
    split: Path,
    group: str,
    work: Path,
    out: Path | None,
) -> None:
    """Compare generators at equal CPU time. NAMES: contestants, by default the seven."""
    import torch
    from threadpoolctl import threadpool_limits

    from benchmarks import contestants
    from benchmarks.newcomers import newcomers as make_newcomers
    from contracts.params import PARAMS_FILE
    from models.identity import FORMAT
    from training import dataset

    known = contestants.contestants(tutorial_width)
    chosen = names or NAMES
    if unknown := sorted(set(chosen) - set(known)):
        raise UserError(f"no contestant {', '.join(unknown)}: expected some of {', '.join(known)}")
    subjects, val, test = (dataset.load(derivatives, split, group, p) for p in
                           ("train", "val", "test"))  # fmt: skip
    if newcomers:
        test = make_newcomers(newcomers, work.with_name("newcomers"))
    conditions = [test.conditions[i % len(test.conditions)] for i in range(samples)]
    settings = (
        subjects.digest, test.digest, seconds, samples, peer_evaluations, tutorial_width,
    )  # fmt: skip
    work = work / hashlib.sha256(repr(settings).encode()).hexdigest()[:12]
    own = f"{FORMAT} {evaluations} {PARAMS_FILE.read_text()}"
    own = hashlib.sha256(own.encode()).hexdigest()[:12]

    def folder(name: str, seed: int) -> Path:
        return work / "-".join([name, *([own] if known[name].own else []), str(seed)])

    torch.set_num_threads(1)
    with threadpool_limits(1):
        rows = [
            row
            for seed in range(repeats)
            for name in chosen
            for row in run(name, known[name], subjects, conditions, seconds, seed,
                           evaluations if known[name].own else (peer_evaluations,),
                           folder(name, seed))
        ]  # fmt: skip
        results = judged(rows, subjects, val, test, conditions, derivatives)
        report: dict[str, Any] = {
            "seconds": seconds,
            "n": {"samples": samples, "train": len(subjects.ids), "test": len(test.ids),
                  "val": len(val.ids), "repeats": repeats},
            "versions": versions(),
            "results": results,
        }  # fmt: skip
        if costs:
            report["costs"] = _costs(subjects, work)
    _tell(report)
    out = out or Path(__file__).with_name(f"generators-{seconds:g}.json")
    out.write_text(json.dumps(report, indent=1) + "\n")
    say(f"written: {out}")


def judged(
    rows: list[dict[str, Any]],
    subjects: Subjects,
    val: Subjects,
    test: Subjects,
    conditions: list[Condition],
    derivatives: Path,
) -> list[dict[str, Any]]:
    """Rows of `run` with the scores of their volumes, after those of the validation subjects."""
    import numpy as np

    from benchmarks.scores import Judge
    from cohort.derivatives import Derivatives
    from contracts.maps import MAPS
    from evaluation.cohort import Cohort

    judge = Judge.of(
        Cohort(subjects.volumes, subjects.conditions, subjects.ids),
        Cohort(test.volumes, test.conditions, test.ids),
        subjects.space, MAPS, Derivatives.open(derivatives).atlas(),
    )  # fmt: skip
    results = [{"name": "real (val)", "scores": judge.scores("real", val.volumes, val.conditions)}]
    for row in rows:
        say(f"{row['name']}, seed {row['seed']}, {row['evaluations']} evaluations: judging")
        scores = judge.scores(row["name"], np.load(row["volumes"]), conditions)
        results.append({**{k: v for k, v in row.items() if k != "volumes"}, "scores": scores})
    return results


def _costs(subjects: Subjects, work: Path) -> dict[str, Any]:
    from benchmarks import costs

    say("costs of samples and steps")
    return {
        dim: {
            "sampling": costs.sampling(dim, subjects, work / "costs"),
            "training_step": costs.training_step(dim, subjects, work / "costs"),
        }
        for dim in ("2d", "3d")
    }


def _tell(report: dict[str, Any]) -> None:
    from benchmarks.scores import ratios, table

    report["ratios"] = ratios(report["results"])
    click.echo(f"{report['seconds']:g} CPU seconds of training each, one core; n = {report['n']}; "
               f"{report['versions']['cpu']}\n")  # fmt: skip
    click.echo(table(report["results"]))
    click.echo("\nkernel distance, ratios (median [least, most] over trainings)")
    for name, found in report["ratios"].items():
        click.echo(f"- {name}: {_range(found)}")
    for dim, found in report.get("costs", {}).items():
        click.echo(f"\n{dim}: CPU s per volume, and the same network's 1000 evaluations over it")
        sampling, step = found["sampling"], found["training_step"]
        for count, cost in sampling["sample_cpu_s"].items():
            over = sampling["ddpm_over_sample"][count]
            click.echo(f"- {count} evaluations: {_range(cost)}; {_range(over)} times less")
        click.echo(f"{dim}: a plain training step of MONAI's over ours, per image")
        for name, over in step["over_ours"].items():
            click.echo(f"- {name}: {_range(over)}")


def _range(found: dict[str, float]) -> str:
    if not found["n"]:
        return "none: its distance is not above zero"
    return f"{found['median']:.3g} [{found['least']:.3g}, {found['most']:.3g}], n = {found['n']}"


if __name__ == "__main__":
    main()
