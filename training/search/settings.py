"""The section `tune` of params.yaml; importable without torch, Ray or Optuna."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Sampler = Literal["tpe", "nsga2", "random"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
# What a trial can be judged by; less is better for each.
OBJECTIVES = ("regional_distance", "copy_share", "trainable", "seconds")


@dataclass(frozen=True, slots=True)
class SpaceSettings:
    """Section `tune.space`: what a trial may choose.

    Parameters
    ----------
    methods : names of methods of `models.adapters.methods`, each with its own choices: `{}` takes
        those of the method's class (`choices` and `learning_rates` there), and
        `{rank: [2, 4], learning_rate: [1e-3, 1e-2]}` others. A learning rate is a range, searched
        on a logarithmic scale; everything else is a list of values.
    steps, ema, site_gain, mean_shift : values to choose from, as in
        `training.settings.AdaptSettings`.
    blocks : ``all``: the blocks of `adapt.<dim>` in every trial. ``each``: every block of the
        network is on or off. ``top``: the first k blocks in the order of how much the loss would
        gain per parameter (`training.search.block_order`); k is chosen.
    """

    methods: dict[str, Any]
    steps: tuple[int, ...]
    ema: tuple[float, ...] = (0.99,)
    site_gain: tuple[bool, ...] = (True,)
    mean_shift: tuple[bool, ...] = (True,)
    blocks: Literal["all", "each", "top"] = "all"

    def __post_init__(self) -> None:
        for name in ("methods", "steps", "ema", "site_gain", "mean_shift"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one value, found none")


@dataclass(frozen=True, slots=True)
class FinalistSettings:
    """Section `tune.finalists`: the second look at the best trials.

    Parameters
    ----------
    trials : how many of the best trials are scored again. The hand-picked settings of every method
        and the one without an adapter are scored again as well, to compare with.
    seeds : sampling seeds that no trial was scored with.
    """

    trials: int = 4
    seeds: int = 6

    def __post_init__(self) -> None:
        if self.trials < 1 or self.seeds < 3:
            raise ValueError("expected at least 1 trial and 3 seeds, which an interval needs")


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Section `tune`.

    Parameters
    ----------
    dim : generator to adapt.
    trials : in all; a higher number adds to a study that is over.
    concurrent : trials at a time.
    cpus, gpus : for each trial; a share of a GPU is allowed.
    seed : of the sampler.
    sampler : ``tpe`` (multivariate, grouped, of one or many objectives), ``nsga2`` or ``random``.
    objectives : of `OBJECTIVES`, the first of them ``regional_distance``. Several: the sampler
        looks for the Pareto front.
    start_from : names of earlier studies (folders in `data/work/studies`) of the same base, data
        and scoring; the sampler of a new study knows their trials.
    limits : largest values of a chosen trial, by name of `OBJECTIVES`.
    stop_early : one objective only: end trials whose held-out loss is among the worse half at a
        quarter, and at a half, of the most steps that can be chosen (ASHA, Li et al. 2020).
    samples, evaluations : synthetic volumes that score a trial, and network evaluations of each.
        All trials have the same seeds, so that their differences are less noisy than their scores.
    """

    dim: Literal["2d", "3d"]
    trials: int
    concurrent: int
    cpus: int
    gpus: float
    seed: int
    space: SpaceSettings
    sampler: Sampler = "tpe"
    objectives: tuple[str, ...] = ("regional_distance",)
    limits: dict[str, Any] = field(default_factory=dict)
    start_from: tuple[str, ...] = ()
    stop_early: bool = False
    samples: int = 16
    evaluations: int = 4
    finalists: FinalistSettings = FinalistSettings()

    def __post_init__(self) -> None:
        if min(self.trials, self.concurrent, self.cpus, self.evaluations) < 1 or self.gpus < 0:
            raise ValueError(
                "trials, concurrent, cpus and evaluations must be at least 1, gpus at least 0"
            )
        if self.samples < 2:
            raise ValueError("samples must be at least 2: a spread is compared")
        if self.objectives[:1] != OBJECTIVES[:1]:
            raise ValueError(
                f"expected {OBJECTIVES[0]} as the first objective, found {list(self.objectives)}"
            )
        unknown = [name for name in (*self.objectives, *self.limits) if name not in OBJECTIVES]
        if unknown or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"expected objectives and limits among {', '.join(OBJECTIVES)}, each once, found "
                f"{', '.join(unknown) or list(self.objectives)}"
            )
        wrong = [k for k, v in self.limits.items() if isinstance(v, bool) or v != v or v < 0]
        if wrong:
            raise ValueError(f"limits: expected numbers of at least 0 for {', '.join(wrong)}")
        if self.stop_early and len(self.objectives) > 1:
            raise ValueError(
                "stop_early needs one objective: which of two trials is worse is not defined for "
                "several"
            )
