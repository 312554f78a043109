"""The second look at the best trials: samples of new seeds, and intervals of their differences."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from scipy import stats

from contracts.console import progress, say
from evaluation.regional_means import distance_of_means
from training.search.records import Record
from training.search.space import Config
from training.search.study import Study
from training.search.trial import Shared, TrialRun, fit_adapter

Float64Array = NDArray[np.float64]
# Seeds of sampling that no trial is scored with, so far apart that no volume has two of them.
_FIRST_SEED, _APART = 500_000, 1_000
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def without_zero(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Rescored:
    """Regional distances to the held-out people, with what is needed for intervals.

    Parameters
    ----------
    by_seed : (S,), beside all people, of each sampling seed.
    without : (P,), mean over seeds, beside all people but one.
    """

    by_seed: Float64Array
    without: Float64Array

    @classmethod
    def of(cls, made: Float64Array, people: Float64Array) -> Rescored:
        """Measures samples beside people.

        Parameters
        ----------
        made : (S, n, 2, R), regional means of the samples of each seed.
        people : (P, 2, R), of the held-out people.
        """
        without = [
            np.mean([distance_of_means(_without(one, i, len(people)), others) for one in made])
            for i, others in enumerate(np.delete(people, i, axis=0) for i in range(len(people)))
        ]
        by_seed = [distance_of_means(one, people) for one in made]
        return cls(np.array(by_seed), np.array(without))

    @property
    def interval(self) -> Interval:
        """The mean distance and its interval."""
        return _interval(self.by_seed, self.without)

    def less(self, other: Rescored) -> Interval:
        """Returns the difference to another generator, paired by seeds and by people."""
        return _interval(self.by_seed - other.by_seed, self.without - other.without)


def _without(made: Float64Array, person: int, people: int) -> Float64Array:
    """Returns the samples but for those at one person's age and sex.

    Samples follow the people in turn (`evaluation.held_out.sample_conditions`). Both go together,
    since otherwise the effect of age, which their matching cancels, would be taken for noise.
    """
    kept = np.delete(made, np.s_[person::people], axis=0)
    return kept if len(kept) > 1 else made


def _interval(by_seed: Float64Array, without: Float64Array) -> Interval:
    """Returns the mean over seeds with an interval for other seeds and other people.

    The variance is that of the mean over seeds plus the jackknife's over people (Efron & Stein
    1981); Student's t has the degrees of freedom of that sum (Satterthwaite 1946).
    """
    seeds, people = len(by_seed), len(without)
    mean = float(by_seed.mean())
    over_seeds = float(by_seed.var(ddof=1) / seeds)
    over_people = float((people - 1) / people * ((without - without.mean()) ** 2).sum())
    variance = over_seeds + over_people
    if variance == 0:
        return Interval(mean, mean, mean)
    freedom = variance**2 / (over_seeds**2 / (seeds - 1) + over_people**2 / (people - 1))
    reach = np.sqrt(variance) * float(stats.t.ppf((1 + _LEVEL) / 2, freedom))
    return Interval(mean, mean - float(reach), mean + float(reach))


def rescored(
    study: Study, records: Sequence[Record], shared: Shared, seeds: int
) -> dict[int, Rescored]:
    """Returns the scores of each trial's adapter for new sampling seeds, by number.

    The seeds are the same for all, so that differences are paired. The samples' regional means are
    kept in the study's folder. Call it while connected to a cluster.
    """
    chosen = [_FIRST_SEED + _APART * i for i in range(seeds)]
    reference = ray.put(shared)
    settings = study.settings
    score = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus)(_means)
    fit = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus)(_fit)
    waiting: dict[Any, Path] = {}
    for record in records:
        folder = study.folder / "trials" / str(record.number)
        missing = [path for seed in chosen if not (path := _kept(folder, seed)).exists()]
        if not missing:
            continue
        files = _files(folder)
        if not files:
            say(f"the adapter of trial {record.number} is not in {folder}: it is trained again")
            folder.mkdir(parents=True, exist_ok=True)
            files = fit.remote(reference, record.config)
        for path in missing:
            waiting[score.remote(reference, files, _seed(path))] = path
    for call in progress(_as_done(list(waiting)), len(waiting), "score finalists again"):
        path, content = waiting[call], io.BytesIO()
        np.save(content, ray.get(call))
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(content.getvalue())
        partial.replace(path)
    people = shared.data.held_out.regions(shared.data.val.volumes)
    found = {}
    for record in records:
        folder = study.folder / "trials" / str(record.number)
        made = np.stack([np.load(_kept(folder, seed)) for seed in chosen])
        found[record.number] = Rescored.of(made, people)
    return found


def _kept(folder: Path, seed: int) -> Path:
    return folder / f"regional-means-{seed}.npy"


def _seed(kept: Path) -> int:
    return int(kept.stem.rpartition("-")[2])


def _as_done(calls: list[Any]) -> Any:
    while calls:
        done, calls = ray.wait(calls)
        yield from done


def _files(folder: Path) -> dict[str, bytes]:
    """Returns the files of a trial's adapter, none if one is missing."""
    paths = [folder / name for name in ("generator.json", "adapter.safetensors")]
    if not all(path.exists() for path in paths):
        return {}
    return {path.name: path.read_bytes() for path in paths}


def _fit(shared: Shared, config: Config) -> dict[str, bytes]:
    """Trains an adapter again, in a worker; its seed makes it the same."""
    with tempfile.TemporaryDirectory() as name:
        fit_adapter(config, shared, Path(name), TrialRun(lambda report: None, 0))
        return _files(Path(name))


def _means(shared: Shared, files: dict[str, bytes], seed: int) -> Float64Array:
    """Samples a kept adapter with one more seed, in a worker."""
    import torch

    from models.adapters import adapted

    torch.set_num_threads(shared.threads)
    with tempfile.TemporaryDirectory() as name:
        for file, content in files.items():
            (Path(name) / file).write_bytes(content)
        generator = adapted.load(Path(name), shared.base)
    held_out = shared.held_out
    return shared.data.held_out.means(generator, held_out.samples, held_out.steps, seed)
