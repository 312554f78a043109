"""The contestants: our generators, the Gaussian baseline and recipes of others (the peers)."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.brains import RegisteredSubjects
from benchmarks.recipes import images
from benchmarks.recipes.budget import Budget
from benchmarks.recipes.diffusion import DDPM_2D, DDPM_3D, PixelDiffusion
from benchmarks.recipes.latent import LDM_3D, BySex, LatentDiffusion
from cohort.subjects import Subjects
from contracts.condition import Condition
from contracts.maps import MAPS, MapSpec
from contracts.params import PARAMS_FILE, load
from evaluation.gaussian_baseline import gaussian_volumes
from evaluation.volume_set import VolumeSet
from models.config import DiffusionConfig, Dim
from models.generator import Generator
from training.dataset import TrainingImages
from training.loop import fit
from training.settings import TrainSettings
from training.train import untrained

Array = NDArray[np.float32]
Sample = Callable[[Sequence[Condition], Sequence[int], int], Array]
Modify = Callable[[Generator, RegisteredSubjects], Generator]

_WARM, _TIMED = 2, 10
# Further ways to sample ours, as arguments of `Generator.sample`.
_ANCESTRAL: Mapping[str, Mapping[str, Any]] = {
    "ancestral": {"steps": 1000, "sampler": "ancestral"},
}
_GUIDED: Mapping[str, Mapping[str, Any]] = {
    f"guidance {factor}": {"steps": 8, "guidance": float(factor)} for factor in (2, 3)
}
# Widths at which some dozens of steps fit into a few minutes of one core at 40 x 48 x 40 voxels.
_NARROW_2D, _NARROW_3D = 4, 8


@dataclass(frozen=True, slots=True)
class Trained:
    """A contestant that is ready.

    Parameters
    ----------
    sample : (conditions, seeds, network evaluations) -> (n, maps, X, Y, Z), physical units.
    steps : optimizer steps made.
    parameters : numbers trained.
    digest : short hash of the weights.
    others : further ways to sample, by what is added to the contestant's name: the function and
        its number of network evaluations.
    """

    sample: Sample
    steps: int
    parameters: int
    digest: str
    others: Mapping[str, tuple[Sample, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something that learns from subjects and makes volumes.

    Parameters
    ----------
    train : (subjects, budget, seed, empty folder) -> ready to sample.
    own : ours, sampled at several numbers of evaluations; a peer is sampled at one.
    """

    train: Callable[[Subjects, Budget, int, Path], Trained]
    own: bool = False


def contestants(tutorial_width: bool = False, params: Path = PARAMS_FILE) -> dict[str, Contestant]:
    """All contestants by name.

    The pixel-space networks of the tutorials are narrowed to 1/4 (2D) and 1/8 (3D) of their
    widths, in their favour: at full width a 3D step takes minutes of one core. ``-tuned`` is the
    same recipe with the learning rate that suits a short training (1e-3), also in its favour.

    Parameters
    ----------
    tutorial_width : widths as in the tutorials.
    params : where our settings `train.2d` and `train.3d` are.
    """
    flat = DDPM_2D if tutorial_width else DDPM_2D.narrowed(_NARROW_2D)
    deep = DDPM_3D if tutorial_width else DDPM_3D.narrowed(_NARROW_3D)
    return {
        "ours-2d": Contestant(ours("2d", params), own=True),
        "ours-3d": Contestant(ours("3d", params), own=True),
        "ours-3d-ancestral": Contestant(ours("3d", params, others=_ANCESTRAL), own=True),
        "ours-3d-ddpm": Contestant(ours("3d", params, _ddpm, others=_ANCESTRAL), own=True),
        "ours-3d-guided": Contestant(ours("3d", params, _withheld, others=_GUIDED), own=True),
        "gaussian": Contestant(_gaussian),
        "monai-ddpm-2d": _peer(partial(PixelDiffusion, flat)),
        "monai-ddpm-3d": _peer(partial(PixelDiffusion, deep)),
        "monai-ldm-3d": _peer(partial(LatentDiffusion, LDM_3D)),
        "seed": _peer(partial(BySex, LDM_3D)),
        "monai-ddpm-2d-tuned": _peer(partial(PixelDiffusion, replace(flat, learning_rate=1e-3))),
        "monai-ddpm-3d-tuned": _peer(partial(PixelDiffusion, replace(deep, learning_rate=1e-3))),
    }


def _peer(
    make: Callable[
        [Sequence[int], tuple[MapSpec, ...], int], PixelDiffusion | LatentDiffusion | BySex
    ],
) -> Contestant:
    """A recipe that is made from (shape, maps, seed)."""

    def train(subjects: Subjects, budget: Budget, seed: int, work: Path) -> Trained:
        model = make(subjects.space.shape, MAPS, seed)
        steps = model.train(subjects.volumes, subjects.conditions, budget)
        size = sum(p.numel() for network in model.networks for p in network.parameters())
        return Trained(model.sample, steps, size, images.digest(*model.networks))

    return Contestant(train)


def _gaussian(subjects: Subjects, budget: Budget, seed: int, work: Path) -> Trained:
    train = VolumeSet(subjects.volumes, subjects.conditions)

    def sample(conditions: Sequence[Condition], seeds: Sequence[int], evaluations: int) -> Array:
        return gaussian_volumes(train, conditions, seeds, MAPS)

    return Trained(sample, 0, 0, subjects.digest)


def prepared(
    dim: Dim, settings: TrainSettings, subjects: Subjects, work: Path
) -> tuple[Generator, RegisteredSubjects]:
    """An untrained generator of ours, and the subjects as it is trained on them.

    Parameters
    ----------
    work : the subjects' template is kept here.
    """
    seen = RegisteredSubjects.of(subjects.encoded(), subjects.conditions, subjects.space, work)
    made = untrained(dim, settings, subjects, seen.encoded, seen.displacements, seen.template)
    return made, seen


def fit_steps(
    generator: Generator,
    data: TrainingImages,
    settings: TrainSettings,
    steps: int,
    work: Path,
    preview: Callable[[int], None] = lambda step: None,
) -> None:
    """Train a generator of ours for `steps` steps, from the start."""
    fit(
        generator.denoiser,
        list(generator.denoiser.network.parameters()),
        data,
        replace(settings.loop, steps=steps),
        work,
        lambda metrics, step: None,
        preview,
        f"ours-{generator.dim}",
    )
    shutil.rmtree(work, ignore_errors=True)


def _ddpm(settings: TrainSettings) -> TrainSettings:
    """The preset `ddpm`, with the sampler that needs few evaluations."""
    path = DiffusionConfig(path="ddpm", sampler="dpm++")
    return replace(settings, diffusion=path)


def _withheld(settings: TrainSettings) -> TrainSettings:
    """Trained with a null token, so that it can be guided."""
    return replace(settings, loop=replace(settings.loop, drop_condition=0.1))


def _unchanged(generator: Generator, seen: RegisteredSubjects) -> Generator:
    return generator


def ours(
    dim: Dim,
    params: Path,
    change: Callable[[TrainSettings], TrainSettings] = lambda settings: settings,
    modify: Modify = _unchanged,
    others: Mapping[str, Mapping[str, Any]] | None = None,
) -> Callable[[Subjects, Budget, int, Path], Trained]:
    """Our generator as `Contestant.train`; a budget of 0 seconds leaves the network untrained.

    Parameters
    ----------
    change : changes the settings that `params` has.
    modify : changes the untrained generator before it is trained.
    others : further ways to sample, as arguments of `Generator.sample`.
    """

    def ready(generator: Generator, steps: int) -> Trained:
        size = sum(p.numel() for p in generator.denoiser.network.parameters())
        ways: dict[str, tuple[Sample, int]] = {}
        if generator.config.diffusion.path == "flow" and steps:
            ways["without the network"] = (partial(_closed_form, generator), 0)
        for name, arguments in (others or {}).items():
            # Guidance evaluates the network twice per step.
            each = 2 if arguments.get("guidance", 1.0) != 1 else 1
            ways[name] = (partial(_sampled, generator, arguments), each * arguments["steps"])
        return Trained(generator.sample, steps, size, generator.digest, ways)

    def train(subjects: Subjects, budget: Budget, seed: int, work: Path) -> Trained:
        begun = time.process_time()
        settings = change(load(TrainSettings, f"train.{dim}", params))
        settings = replace(settings, loop=replace(settings.loop, seed=seed))
        generator, seen = prepared(dim, settings, subjects, work / "template")
        generator = modify(generator, seen)
        if budget.seconds == 0:
            shutil.rmtree(work / "template", ignore_errors=True)
            return ready(generator, 0)
        data = seen.images(generator.prior, work / "data")
        steps = budget.steps
        if steps is None:
            # The learning rate falls over the whole run, so its number of steps has to be known
            # ahead. A copy makes the first steps; the time they take counts.
            probe = copy.deepcopy(generator)
            fit_steps(probe, data, settings, _WARM, work / "probe")
            before = time.process_time()
            fit_steps(probe, data, settings, _TIMED, work / "probe")
            now = time.process_time()
            left = budget.seconds - (now - begun)
            steps = max(1, int(left / ((now - before) / _TIMED)))
        fit_steps(generator, data, settings, steps, work / "fit")
        shutil.rmtree(work / "data")
        shutil.rmtree(work / "template", ignore_errors=True)
        return ready(generator, steps)

    return train


def _closed_form(
    generator: Generator, conditions: Sequence[Condition], seeds: Sequence[int], evaluations: int
) -> Array:
    return generator.sample_closed_form(conditions, seeds)


def _sampled(
    generator: Generator,
    arguments: Mapping[str, Any],
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    evaluations: int,
) -> Array:
    return generator.sample(conditions, seeds, **arguments)
