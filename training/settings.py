"""The training sections of params.yaml; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from models.config import DiffusionConfig, NetworkConfig


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How to train.

    Parameters
    ----------
    steps : optimizer steps.
    batch : volumes in memory at a time, per process.
    accumulate : batches per step and process, one after the other. The gradient is that of all of
        them at once: 2 processes that accumulate 1 do what one does that accumulates 2.
    slices : 2D only: slices of each volume per step; 0 means all.
    cubes : 3D only: cubes of each volume per step; 0 means the whole volume.
    cube_edge : 3D only: edge of these cubes in voxels, a multiple of what the network halves.
    learning_rate : reached after `warmup` steps, held to half of the steps, then let fall to
        zero along a cosine.
    ema : decay of the exponential moving average of the weights; this average is the result.
    drop_condition : share of volumes whose condition is withheld, so that the network also learns
        what holds for everybody and samples can be guided (Ho & Salimans 2022, algorithm 1); 0.1
        is usual. 0, the default: never, all steps are spent on the conditions.
    checkpoint_every : steps between checkpoints.
    validate_every : steps between measurements of the loss on held-out subjects.
    patience : training stops after as many measurements that were no better than one before them;
        0: never. The weights of the best one remain.
    recompute : compute norms and activations again instead of keeping them, see
        `models.diffusion.recompute.switch`: about half of the memory, for a few percent of time.
    compile : compile the network and its loss on a GPU; it starts minutes later. On a CPU, where
        it gains nothing, it is left out.
    """

    steps: int
    batch: int = 2
    accumulate: int = 1
    slices: int = 0
    cubes: int = 0
    cube_edge: int = 16
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    drop_condition: float = 0.0
    seed: int = 0
    checkpoint_every: int = 100
    validate_every: int = 40
    patience: int = 5
    recompute: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        counts = ("steps", "batch", "accumulate", "checkpoint_every", "validate_every")
        if min(getattr(self, name) for name in counts) < 1:
            raise ValueError(f"{', '.join(counts)} must be at least 1")
        if self.patience < 0:
            raise ValueError("patience must be at least 0, which means never to stop early")
        if min(self.slices, self.cubes) < 0 or self.cube_edge < 1:
            raise ValueError(
                "slices and cubes must be at least 0, which means all, and cube_edge at least 1"
            )
        if not 0 < self.learning_rate < 1 or not 0 <= self.ema < 1:
            raise ValueError("expected 0 < learning_rate < 1 and 0 <= ema < 1")
        if not 0 <= self.drop_condition < 1:
            raise ValueError("expected 0 <= drop_condition < 1")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Section `train.2d` or `train.3d`.

    Parameters
    ----------
    condition_on_site : tell regression and network the `site` of participants.tsv, so that
        samples can be asked for one. For cohorts of several scanners.
    """

    network: NetworkConfig
    diffusion: DiffusionConfig
    loop: LoopSettings
    condition_on_site: bool = False


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """Section `adapt.2d` or `adapt.3d`: what to adapt, and how.

    Parameters
    ----------
    method : how weights are changed, see `models.adapters.methods`.
    settings : of the method; what is left out has the method's default.
    blocks : patterns of the network's blocks that may change; `python -m training.blocks` lists
        them.
    site_gain : also fit the site's factor on each map (`models.prior.prior.Prior.site_gain`).
    mean_shift : also fit a shift of the mean at each place (`models.prior.mean_shift`).
    learning_rate : default: that of the method.
    ema : decay of the moving average of the trained weights, which is the result.
    steps, batch, slices, cubes, cube_edge : as in `LoopSettings`.
    """

    method: str = "lora"
    settings: dict[str, Any] = field(default_factory=dict)
    blocks: tuple[str, ...] = ("*",)
    site_gain: bool = True
    mean_shift: bool = True
    steps: int = 150
    batch: int = 2
    slices: int = 0
    cubes: int = 0
    cube_edge: int = 16
    learning_rate: float | None = None
    ema: float = 0.99
    seed: int = 0

    def loop(self, default_rate: float) -> LoopSettings:
        """Returns these settings as the training loop reads them.

        Nothing decays towards zero: for some methods that would be a pull towards the base, for
        others one away from it.

        Parameters
        ----------
        default_rate : learning rate of the method.
        """
        return LoopSettings(
            steps=self.steps,
            batch=self.batch,
            slices=self.slices,
            cubes=self.cubes,
            cube_edge=self.cube_edge,
            learning_rate=self.learning_rate or default_rate,
            warmup=min(50, self.steps // 4),
            weight_decay=0.0,
            ema=self.ema,
            seed=self.seed,
            checkpoint_every=50,
            validate_every=20,
            recompute=True,
        )

    def with_choices(self, choices: Mapping[str, Any]) -> AdaptSettings:
        """Returns these settings with others in their place.

        A name that is not a field here is a setting of the method. Blocks may be one pattern.
        """
        own = {f.name for f in fields(self)}
        changed = {name: value for name, value in choices.items() if name in own}
        if isinstance(changed.get("blocks"), str):
            changed["blocks"] = (changed["blocks"],)
        of_method = {name: value for name, value in choices.items() if name not in own}
        return replace(self, **changed, settings={**self.settings, **of_method})


@dataclass(frozen=True, slots=True)
class HeldOutSettings:
    """Section `adapt.held_out`: how an adapted generator is scored on the validation subjects.

    Parameters
    ----------
    samples : synthetic volumes.
    steps : network evaluations per volume.
    """

    samples: int = 24
    steps: int = 8
