"""A contest of generators at equal CPU time.

Each contestant is trained on the same subjects for the same CPU seconds, samples volumes of the
same ages and sexes, and its volumes are scored by the same judge (`benchmarks.scores`).
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import result
from contracts import closure, paths
from contracts.console import progress, say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.contestants import Contestant, Sample
    from cohort.subjects import Subjects
    from contracts.condition import Condition

# Seeds of the volumes: no stage and no other benchmark samples from these.
_FIRST_SEED = 500_000


def source_options(main: Callable[..., None]) -> Callable[..., None]:
    """Options that say which subjects are taken: the command gets ``source``."""

    @click.option("--derivatives", type=click.Path(path_type=Path), default=paths.DERIVATIVES)
    @click.option("--split", type=click.Path(path_type=Path), default=paths.SPLIT)
    @click.option("--group", default="base", show_default=True)
    @functools.wraps(main)
    def with_source(*args: Any, derivatives: Path, split: Path, group: str, **others: Any) -> None:
        main(*args, source=Source(derivatives, split, group), **others)

    return with_source


def options(main: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that holds a contest: it gets ``name``, ``repeats`` and ``source``."""
    named = click.option("--name", help="Of the result: results/NAME.json.")
    repeated = click.option(
        "--repeats", default=1, show_default=True, help="Trainings, seeds 0, 1, ..."
    )
    return named(repeated(source_options(main)))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the subjects come from: the files of a chain, and a group of its split."""

    derivatives: Path
    split: Path
    group: str

    def load(self, part: str) -> Subjects:
        """The subjects of a part of the split: train, val or test."""
        from cohort import subjects

        return subjects.load(self.derivatives, self.split, self.group, part)

    def atlas(self) -> tuple[NDArray[np.int32], dict[int, str]] | None:
        """The regions that the judge compares: labels and their names."""
        from cohort.derivatives import Derivatives

        return Derivatives.open(self.derivatives).atlas()


@dataclass(frozen=True, slots=True)
class Contest:
    """The subjects, and what each contestant is given and asked for.

    Parameters
    ----------
    train : the subjects that contestants are trained on.
    val : other real subjects, scored as a contestant is: what a perfect generator would reach.
    test : the real subjects that all volumes are compared with.
    conditions : of the volumes that each contestant samples.
    seconds : CPU seconds of training.
    repeats : trainings of each contestant, with seeds 0, 1, ...
    source : its derivatives hold the atlas whose regions the judge compares.
    """

    train: Subjects
    val: Subjects
    test: Subjects
    conditions: list[Condition]
    seconds: float
    repeats: int
    source: Source

    @classmethod
    def of(
        cls,
        source: Source,
        samples: int,
        seconds: float,
        repeats: int,
        test: Subjects | None = None,
    ) -> Contest:
        """A contest of `samples` volumes with the ages and sexes of the test subjects.

        Parameters
        ----------
        test : other test subjects than those of the source's split.
        """
        train, val = source.load("train"), source.load("val")
        test = test or source.load("test")
        conditions = [test.conditions[i % len(test.conditions)] for i in range(samples)]
        return cls(train, val, test, conditions, seconds, repeats, source)

    def rows(
        self,
        entries: Iterable[tuple[str, Contestant, Sequence[int]]],
        folder: Callable[[str, int], Path],
    ) -> list[dict[str, Any]]:
        """A row per contestant, seed and number of evaluations, see `run`, with its scores.

        Parameters
        ----------
        entries : name, contestant and the numbers of evaluations that it is sampled at.
        folder : of a contestant's name and seed, for what was finished.
        """
        entries = list(entries)
        return self._scored([
            row
            for seed in range(self.repeats)
            for name, contestant, evaluations in entries
            for row in run(name, contestant, self.train, self.conditions, self.seconds, seed,
                           evaluations, folder(name, seed))
        ])  # fmt: skip

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write the rows to results/<name>.json."""
        n = {
            "volumes each": len(self.conditions),
            "training subjects": len(self.train.ids),
            "test subjects": len(self.test.ids),
            "validation subjects": len(self.val.ids),
        }
        result.write(
            name, rows, n=n, seeds=range(self.repeats), threads=1, intervals=result.CONFIDENCE
        )

    def _scored(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        import numpy as np

        from benchmarks.scores import Judge
        from contracts.maps import MAPS
        from evaluation.volume_set import VolumeSet

        train, test, val = self.train, self.test, self.val
        judge = Judge.of(
            VolumeSet(train.volumes, train.conditions, train.ids),
            VolumeSet(test.volumes, test.conditions, test.ids),
            train.space, MAPS, self.source.atlas(),
        )  # fmt: skip
        real = judge.scores("real", val.volumes, val.conditions)
        scored: list[dict[str, Any]] = [{"name": "real (val)", "scores": real}]
        for row in rows:
            say(f"{row['name']}, seed {row['seed']}, {row['evaluations']} evaluations: judging")
            scores = judge.scores(row["name"], np.load(row["volumes"]), self.conditions)
            scored.append({**{k: v for k, v in row.items() if k != "volumes"}, "scores": scores})
        return scored


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


def code() -> str:
    """A short hash of the code that contestants are prepared, trained and sampled by.

    It is part of the name of kept work, so that no contest goes on with what other code has made.
    """
    return closure.digest("benchmarks.contestants")
