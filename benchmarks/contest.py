"""A contest: contestants trained on the same subjects, sampled alike, before the same judge."""

from __future__ import annotations

import functools
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contracts.console import progress, say

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant, Sample
    from contracts.condition import Condition
    from training.dataset import Subjects

# No stage and no other benchmark samples from these.
_FIRST_SEED = 500_000


def options(main: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that holds a contest: it gets ``repeats`` and ``cohort``."""

    @click.option("--repeats", default=1, show_default=True, help="Trainings, seeds 0, 1, ...")
    @click.option(
        "--derivatives", type=click.Path(path_type=Path), default=Path("data/derivatives")
    )
    @click.option("--split", type=click.Path(path_type=Path), default=Path("data/split.json"))
    @click.option("--group", default="base", show_default=True)
    @functools.wraps(main)
    def told(*args: Any, derivatives: Path, split: Path, group: str, **others: Any) -> None:
        main(*args, cohort=Cohort(derivatives, split, group), **others)

    return told


@dataclass(frozen=True, slots=True)
class Cohort:
    """Where the subjects are: the folders of a chain, and a group of its split."""

    derivatives: Path
    split: Path
    group: str

    def load(self, part: str) -> Subjects:
        """The subjects of a part: train, val or test."""
        from training import dataset

        return dataset.load(self.derivatives, self.split, self.group, part)


@dataclass(frozen=True, slots=True)
class Contest:
    """Who is learnt from and who is judged beside.

    Parameters
    ----------
    train : what contestants see.
    val : real people who enter the table themselves, as its yardstick.
    test : real people beside whom all are judged.
    conditions : of the volumes that each contestant makes.
    seconds : CPU seconds of training.
    repeats : trainings of each contestant.
    cohort : whose regions of the brain the judge knows.
    """

    train: Subjects
    val: Subjects
    test: Subjects
    conditions: list[Condition]
    seconds: float
    repeats: int
    cohort: Cohort

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        samples: int,
        seconds: float,
        repeats: int,
        test: Subjects | None = None,
    ) -> Contest:
        """A contest of so many volumes with the ages and sexes of the test people.

        Parameters
        ----------
        test : other people than the cohort's test part.
        """
        train, val = cohort.load("train"), cohort.load("val")
        test = test or cohort.load("test")
        conditions = [test.conditions[i % len(test.conditions)] for i in range(samples)]
        return cls(train, val, test, conditions, seconds, repeats, cohort)

    def rows(
        self,
        entries: Iterable[tuple[str, Contestant, Sequence[int]]],
        folder: Callable[[str, int], Path],
    ) -> list[dict[str, Any]]:
        """Train and sample, each in the folder of its name and seed: see `run`.

        Parameters
        ----------
        entries : name, contestant and the numbers of evaluations that it is sampled at.
        """
        entries = list(entries)
        return [
            row
            for seed in range(self.repeats)
            for name, contestant, evaluations in entries
            for row in run(name, contestant, self.train, self.conditions, self.seconds, seed,
                           evaluations, folder(name, seed))
        ]  # fmt: skip

    def report(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The rows with the scores of their volumes, and what they depend on."""
        return {
            "seconds": self.seconds,
            "n": {"samples": len(self.conditions), "train": len(self.train.ids),
                  "test": len(self.test.ids), "val": len(self.val.ids), "repeats": self.repeats},
            "versions": versions(),
            "results": self._judged(rows),
        }  # fmt: skip

    def _judged(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        import numpy as np

        from benchmarks.scores import Judge
        from cohort.derivatives import Derivatives
        from contracts.maps import MAPS
        from evaluation.volume_set import VolumeSet

        train, test, val = self.train, self.test, self.val
        judge = Judge.of(
            VolumeSet(train.volumes, train.conditions, train.ids),
            VolumeSet(test.volumes, test.conditions, test.ids),
            train.space, MAPS, Derivatives.open(self.cohort.derivatives).atlas(),
        )  # fmt: skip
        real = judge.scores("real", val.volumes, val.conditions)
        results: list[dict[str, Any]] = [{"name": "real (val)", "scores": real}]
        for row in rows:
            say(f"{row['name']}, seed {row['seed']}, {row['evaluations']} evaluations: judging")
            scores = judge.scores(row["name"], np.load(row["volumes"]), self.conditions)
            results.append({**{k: v for k, v in row.items() if k != "volumes"}, "scores": scores})
        return results


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
