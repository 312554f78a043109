"""Controls of the judge: real volumes spoiled in a known way, and the questions that must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from contracts.condition import Condition
from evaluation import copies
from evaluation.copies import per_map, possible
from evaluation.measurement_grid import BACKGROUND_MD
from evaluation.measurements import WHITE_MATTER_FA
from evaluation.results import Question
from evaluation.volume_set import VolumeSet

# Standard deviation of the blur in voxels.
_BLUR_SIGMA = 0.42
_FA_NOISE, _MD_NOISE = 0.03, 0.04e-3
# The mean map fades out where brains end in different places, and is cut at this MD. mm2/s.
_MEAN_MAP_MD = 0.35e-3
# Share of voxels with salt, of boundary voxels removed or added, specks per brain, and half of the
# voxels across the midline in which the corpus callosum is broken.
_SALT_SHARE, _RAGGED_SHARE, _SPECKS, _SLAB = 0.01, 0.03, 3, 2

Make = Callable[[VolumeSet, VolumeSet], VolumeSet]


@dataclass(frozen=True, slots=True)
class Control:
    """A synthetic set with a known fault.

    Parameters
    ----------
    fails : the questions that must fail; all others must pass.
    make : returns the set, given new real subjects (neither in the training nor in the test set)
        and the training subjects.
    """

    name: str
    fails: tuple[Question, ...]
    make: Make


def controls() -> tuple[Control, ...]:
    """Returns all controls; the first has no fault."""
    wrong_values: tuple[Question, ...] = ("fidelity", "anatomy", "utility")
    collapsed: tuple[Question, ...] = ("fidelity", "diversity", "anatomy", "utility")

    def spoiled(change: Callable[[VolumeSet], VolumeSet]) -> Make:
        return lambda new, train: change(new)

    return (
        Control("real", (), spoiled(lambda new: new)),
        Control("copies of training subjects", ("privacy",), copies.copies),
        Control("half copies", ("privacy",), copies.half_copies),
        Control("three copies, shifted and brightened", ("privacy",), copies.hidden_copies),
        Control("three copies, warped", ("privacy",), copies.warped_copies),
        Control("three blends of two training subjects", ("privacy",), copies.blends),
        Control("noise added", ("fidelity",), spoiled(_noisy)),
        Control("blurred", ("fidelity", "anatomy"), spoiled(_blurred)),
        Control("salt grain", ("fidelity",), spoiled(_with_salt)),
        Control("ragged boundary", ("fidelity",), spoiled(_ragged)),
        Control("specks beside the brain", ("fidelity",), spoiled(_with_specks)),
        Control("broken corpus callosum", ("fidelity", "anatomy"), spoiled(_broken_callosum)),
        Control("FA 15 % too high", wrong_values, spoiled(_high_fa)),
        Control("MD in um2/ms", wrong_values, spoiled(_md_in_other_unit)),
        Control("half of them mirrored", ("anatomy",), spoiled(_mirrored)),
        Control("MD of another subject", ("fidelity", "anatomy"), spoiled(_with_md_of_others)),
        Control("ages shuffled", ("anatomy", "utility"), spoiled(_with_shuffled_ages)),
        Control("women only", ("diversity",), spoiled(_women)),
        Control("two subjects, repeated", collapsed, spoiled(_two_repeated)),
        Control("one mean map", collapsed, spoiled(_mean_map)),
        Control("pure noise", wrong_values, spoiled(_pure_noise)),
    )


def _noisy(new: VolumeSet) -> VolumeSet:
    rng = np.random.default_rng(1)
    noise = per_map(_FA_NOISE, _MD_NOISE) * rng.standard_normal(new.volumes.shape, dtype=np.float32)
    brain = new.volumes[:, 1:] > BACKGROUND_MD
    return new.with_volumes(possible(np.where(brain, new.volumes + noise, 0)))


def _blurred(new: VolumeSet) -> VolumeSet:
    """Blurs inside the brain only, since a blurred edge of the brain would be another fault."""
    from scipy.ndimage import gaussian_filter

    brain = new.volumes[:, 1:] > BACKGROUND_MD
    blurred = np.empty_like(new.volumes)
    for i, (volume, mask) in enumerate(zip(new.volumes, brain[:, 0], strict=True)):
        share = np.maximum(gaussian_filter(mask.astype(np.float32), _BLUR_SIGMA), 1e-3)
        for k, image in enumerate(volume):
            blurred[i, k] = np.where(mask, gaussian_filter(image * mask, _BLUR_SIGMA) / share, 0)
    return new.with_volumes(blurred)


def _with_salt(new: VolumeSet) -> VolumeSet:
    """Changes single voxels by half of their value, up and down alike."""
    rng = np.random.default_rng(4)
    chosen = rng.random(new.volumes.shape) < _SALT_SHARE
    sign = np.where(rng.random(new.volumes.shape) < 0.5, -1.0, 1.0)
    return new.with_volumes(possible(new.volumes * (1 + 0.5 * chosen * sign)))


def _ragged(new: VolumeSet) -> VolumeSet:
    """Takes voxels at the boundary off the brain, and adds as many outside, at random."""
    from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt

    rng = np.random.default_rng(5)
    out = np.empty_like(new.volumes)
    for i, volume in enumerate(new.volumes):
        brain = volume[1] > BACKGROUND_MD
        last, next_to = brain & ~binary_erosion(brain), binary_dilation(brain) & ~brain
        removed = last & (rng.random(brain.shape) < _RAGGED_SHARE)
        added = next_to & (rng.random(brain.shape) < _RAGGED_SHARE * last.sum() / next_to.sum())
        nearest = distance_transform_edt(~brain, return_distances=False, return_indices=True)
        continued = volume[:, *nearest]
        out[i] = np.where((brain & ~removed) | added, continued, 0)
    return new.with_volumes(out)


def _with_specks(new: VolumeSet) -> VolumeSet:
    """Puts single voxels of cortex beside the brain, one voxel away from it."""
    from scipy.ndimage import binary_dilation

    rng = np.random.default_rng(6)
    out = new.volumes.copy()
    for i, volume in enumerate(new.volumes):
        brain = volume[1] > BACKGROUND_MD
        away = binary_dilation(brain, iterations=2) & ~binary_dilation(brain, np.ones((3, 3, 3)))
        places = np.argwhere(away)
        for place in rng.choice(places, _SPECKS, replace=False):
            out[i, :, *place] = per_map(0.15, 0.9e-3)[0, :, 0, 0, 0]
    return new.with_volumes(out)


def _broken_callosum(new: VolumeSet) -> VolumeSet:
    """Takes FA from every second tract voxel near the midline, as where fibres are interrupted."""
    rng = np.random.default_rng(7)
    middle = new.volumes.shape[2] // 2
    slab = (slice(None), 0, slice(middle - _SLAB, middle + _SLAB))
    out = new.volumes.copy()
    gap = (out[slab] > WHITE_MATTER_FA) & (rng.random(out[slab].shape) < 0.5)
    out[slab] = np.where(gap, 0.5 * WHITE_MATTER_FA, out[slab])
    return new.with_volumes(out)


def _high_fa(new: VolumeSet) -> VolumeSet:
    return new.with_volumes(possible(new.volumes * per_map(1.15, 1.0)))


def _md_in_other_unit(new: VolumeSet) -> VolumeSet:
    return new.with_volumes(new.volumes * per_map(1.0, 1e3))


def _mirrored(new: VolumeSet) -> VolumeSet:
    volumes = new.volumes.copy()
    volumes[::2] = volumes[::2, :, ::-1]
    return new.with_volumes(volumes)


def _with_md_of_others(new: VolumeSet) -> VolumeSet:
    """Takes MD from the subject of the same sex that is next in age, which keeps the age effect."""
    volumes = new.volumes.copy()
    for sex in "FM":
        rows = [i for i, c in enumerate(new.conditions) if c.sex == sex]
        rows.sort(key=lambda i: new.conditions[i].age)
        volumes[rows, 1] = new.volumes[np.roll(rows, 1), 1]
    return new.with_volumes(volumes)


def _with_shuffled_ages(new: VolumeSet) -> VolumeSet:
    order = np.random.default_rng(2).permutation(len(new))
    conditions = tuple(
        Condition(new.conditions[j].age, person.sex)
        for person, j in zip(new.conditions, order, strict=True)
    )
    return replace(new, conditions=conditions)


def _women(new: VolumeSet) -> VolumeSet:
    return new.take([i for i, c in enumerate(new.conditions) if c.sex == "F"])


def _two_repeated(new: VolumeSet) -> VolumeSet:
    """Repeats the volumes of two subjects, at one third and two thirds of the ages."""
    by_age = np.argsort([c.age for c in new.conditions])
    chosen = by_age[np.linspace(0, len(by_age) - 1, 4).round().astype(int)[1:-1]]
    return new.with_volumes(new.volumes[np.resize(chosen, len(new))])


def _mean_map(new: VolumeSet) -> VolumeSet:
    mean = new.volumes.mean(axis=0)
    mean = np.where(mean[1] > _MEAN_MAP_MD, mean, 0)
    return new.with_volumes(np.tile(mean, (len(new), 1, 1, 1, 1)))


def _pure_noise(new: VolumeSet) -> VolumeSet:
    rng = np.random.default_rng(3)
    brain = new.volumes[:, 1:] > BACKGROUND_MD
    noise = 0.3 * rng.standard_normal(new.volumes.shape, dtype=np.float32)
    return new.with_volumes(possible(np.where(brain, per_map(0.3, 0.9e-3) * (1 + noise), 0)))
