"""Sets that are known to be bad in one way, and what an audit must say of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from evaluation.audit import Subject
from evaluation.cohort import Cohort
from evaluation.finding import Question
from evaluation.profile import BACKGROUND_MD

Array = NDArray[np.float32]
# Widths of the blur, in voxels.
_BLUR = 0.42
# Smoothness and largest size of a bend, in voxels.
_BEND = 5.0
_BEND_BY = 1.5

# (new real subjects, training subjects) -> the control
Make = Callable[[Cohort, Cohort], Cohort]


@dataclass(frozen=True, slots=True)
class Control:
    """A set made from real subjects.

    Parameters
    ----------
    fails : the questions that must fail; all others must pass.
    make : makes it from real subjects that are neither trained on nor tested with, and from
        training subjects.
    """

    name: str
    fails: tuple[Question, ...]
    make: Make


def controls() -> tuple[Control, ...]:
    """All controls."""
    values: tuple[Question, ...] = ("fidelity", "anatomy", "utility")
    collapse: tuple[Question, ...] = ("fidelity", "diversity", "anatomy", "utility")

    def of_new(change: Callable[[Cohort], Cohort]) -> Make:
        return lambda new, train: change(new)

    return (
        Control("real", (), of_new(lambda new: new)),
        Control("copies of training subjects", ("privacy",), _copies),
        Control("half copies", ("privacy",), _half_copies),
        Control("three copies, shifted and brightened", ("privacy",), _hidden_copies),
        Control("three copies, warped", ("privacy",), _warped_copies),
        Control("three blends of two training subjects", ("privacy",), _blends),
        Control("noise added", ("fidelity",), of_new(_noisy)),
        Control("blurred", ("fidelity", "anatomy"), of_new(_blurred)),
        Control("FA 15 % too high", values, of_new(lambda new: _gain(new, 0, 1.15))),
        Control("MD in um2/ms", values, of_new(lambda new: _gain(new, 1, 1e3))),
        Control("half of them mirrored", ("anatomy",), of_new(_mirrored)),
        Control("MD of another subject", ("anatomy",), of_new(_unpaired)),
        Control("ages shuffled", ("anatomy", "utility"), of_new(_relabelled)),
        Control("women only", ("diversity",), of_new(_women)),
        Control("two subjects, repeated", collapse, of_new(lambda new: _repeated(new, 2))),
        Control("one mean map", collapse, of_new(_mean)),
        Control("pure noise", values, of_new(_pure_noise)),
    )


def _copies(new: Cohort, train: Cohort) -> Cohort:
    return train.take(np.arange(min(len(train), len(new))))


def _half_copies(new: Cohort, train: Cohort) -> Cohort:
    half = len(new) // 2
    return _joined(train.take(np.arange(half)), new.take(np.arange(half, len(new))))


def _hidden_copies(new: Cohort, train: Cohort) -> Cohort:
    return plant(new, train, 3)


def _warped_copies(new: Cohort, train: Cohort) -> Cohort:
    """Training subjects bent smoothly, by up to one and a half voxels."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    rng = np.random.default_rng(4)
    chosen = train.take(rng.permutation(len(train))[:3])
    volumes = np.empty_like(chosen.volumes)
    grid = np.stack(np.meshgrid(*map(np.arange, volumes.shape[2:]), indexing="ij"))
    for i, volume in enumerate(chosen.volumes):
        bend = gaussian_filter(rng.standard_normal(grid.shape), (0, _BEND, _BEND, _BEND))
        bend *= _BEND_BY / np.sqrt((bend**2).sum(axis=0)).max()
        brain = map_coordinates((volume[1] > BACKGROUND_MD).astype(np.float32), grid + bend) > 0.5
        for k, image in enumerate(volume):
            volumes[i, k] = np.where(brain, map_coordinates(image, grid + bend, order=1), 0)
    return _joined(
        Cohort(_possible(volumes), chosen.conditions, ("bent 0", "bent 1", "bent 2")),
        _named(new.take(np.arange(3, len(new)))),
    )


def _blends(new: Cohort, train: Cohort) -> Cohort:
    """Means of two training subjects of one sex, next to each other in age."""
    pairs = []
    for sex in "FM":
        rows = [i for i, c in enumerate(train.conditions) if c.sex == sex]
        rows.sort(key=lambda i: train.conditions[i].age)
        pairs += list(pairwise(rows))[:: max(len(rows) // 2, 1)]
    pairs = pairs[:3]
    volumes = np.stack([train.volumes[list(p)].mean(axis=0) for p in pairs])
    conditions = tuple(train.conditions[p[0]] for p in pairs)
    return _joined(
        Cohort(volumes, conditions, tuple(f"blend {i}" for i in range(len(pairs)))),
        _named(new.take(np.arange(len(pairs), len(new)))),
    )


def plant(cohort: Cohort, train: Cohort, count: int, seed: int = 0) -> Cohort:
    """A cohort whose first volumes are disguised training subjects: canaries that an audit has to
    find.

    Each is shifted by one voxel, its values are changed by 3 % and 2 % of noise is added.
    """
    rng = np.random.default_rng(seed)
    chosen = train.take(rng.permutation(len(train))[:count])
    volumes = np.roll(chosen.volumes, 1, axis=3) * np.float32(1.03)
    inside = volumes != 0
    scale = np.array([0.02, 0.02e-3 * 1.0], dtype=np.float32)[None, :, None, None, None]
    noise = scale * rng.standard_normal(volumes.shape, dtype=np.float32)
    volumes = _possible(np.where(inside, volumes + noise, 0))
    canaries = Cohort(volumes, chosen.conditions, tuple(f"canary {i}" for i in range(count)))
    return _joined(canaries, _named(cohort.take(np.arange(count, len(cohort)))))


def _named(cohort: Cohort) -> Cohort:
    ids = cohort.ids or tuple(f"volume {i}" for i in range(len(cohort)))
    return Cohort(cohort.volumes, cohort.conditions, ids)


def _joined(first: Cohort, second: Cohort) -> Cohort:
    return Cohort(
        np.concatenate([first.volumes, second.volumes]),
        (*first.conditions, *second.conditions),
        (*first.ids, *second.ids),
    )


def _with(cohort: Cohort, volumes: Array) -> Cohort:
    return Cohort(volumes.astype(np.float32), cohort.conditions, cohort.ids)


def _possible(volumes: Array) -> Array:
    limit = np.array([1.0, 3.2e-3], dtype=np.float32)[None, :, None, None, None]
    return np.clip(volumes, 0, limit)


def _noisy(cohort: Cohort) -> Cohort:
    rng = np.random.default_rng(1)
    scale = np.array([0.03, 0.04e-3], dtype=np.float32)[None, :, None, None, None]
    noise = scale * rng.standard_normal(cohort.volumes.shape, dtype=np.float32)
    brain = cohort.volumes[:, 1:] > BACKGROUND_MD
    return _with(cohort, _possible(np.where(brain, cohort.volumes + noise, 0)))


def _blurred(cohort: Cohort) -> Cohort:
    from scipy.ndimage import gaussian_filter

    brain = cohort.volumes[:, 1:] > BACKGROUND_MD
    out = np.empty_like(cohort.volumes)
    for i, (volume, mask) in enumerate(zip(cohort.volumes, brain[:, 0], strict=True)):
        # Inside the brain only: blurring the rim would be another fault.
        share = np.maximum(gaussian_filter(mask.astype(np.float32), _BLUR), 1e-3)
        for k, image in enumerate(volume):
            out[i, k] = np.where(mask, gaussian_filter(image * mask, _BLUR) / share, 0)
    return _with(cohort, out)


def _gain(cohort: Cohort, k: int, factor: float) -> Cohort:
    volumes = cohort.volumes.copy()
    volumes[:, k] *= np.float32(factor)
    if k == 0:
        volumes = _possible(volumes)
    return _with(cohort, volumes)


def _mirrored(cohort: Cohort) -> Cohort:
    volumes = cohort.volumes.copy()
    volumes[::2] = volumes[::2, :, ::-1]
    return _with(cohort, volumes)


def _unpaired(cohort: Cohort) -> Cohort:
    """MD of the subject next in age of the same sex, so that ageing stays."""
    volumes = cohort.volumes.copy()
    for sex in "FM":
        rows = [i for i, c in enumerate(cohort.conditions) if c.sex == sex]
        rows.sort(key=lambda i: cohort.conditions[i].age)
        volumes[rows, 1] = cohort.volumes[np.roll(rows, 1), 1]
    return _with(cohort, volumes)


def _relabelled(cohort: Cohort) -> Cohort:
    order = np.random.default_rng(2).permutation(len(cohort))
    conditions = tuple(
        Condition(cohort.conditions[j].age, person.sex)
        for person, j in zip(cohort.conditions, order, strict=True)
    )
    return Cohort(cohort.volumes, conditions, cohort.ids)


def shuffled_ages(subject: Subject, seed: int = 0) -> Subject:
    """The same volumes with their ages dealt out anew: what no adherence looks like."""
    order = np.random.default_rng(seed).permutation(len(subject.profiles))
    return replace(subject, profiles=replace(subject.profiles, age=subject.profiles.age[order]))


def _women(cohort: Cohort) -> Cohort:
    return cohort.take([i for i, c in enumerate(cohort.conditions) if c.sex == "F"])


def _repeated(cohort: Cohort, count: int) -> Cohort:
    ages = np.argsort([c.age for c in cohort.conditions])
    chosen = ages[np.linspace(0, len(ages) - 1, count + 2).round().astype(int)[1:-1]]
    return _with(cohort, cohort.volumes[np.resize(chosen, len(cohort))])


def _mean(cohort: Cohort) -> Cohort:
    mean = cohort.volumes.mean(axis=0)
    brain = mean[1] > 0.35e-3
    return _with(cohort, np.tile(np.where(brain, mean, 0), (len(cohort), 1, 1, 1, 1)))


def _pure_noise(cohort: Cohort) -> Cohort:
    rng = np.random.default_rng(3)
    brain = cohort.volumes[:, 1:] > BACKGROUND_MD
    centre = np.array([0.3, 0.9e-3], dtype=np.float32)[None, :, None, None, None]
    noise = 0.3 * rng.standard_normal(cohort.volumes.shape, dtype=np.float32)
    return _with(cohort, _possible(np.where(brain, centre * (1 + noise), 0)))
