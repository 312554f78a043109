"""MONAI's pixel-space DDPM tutorials, 2D and 3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.recipes import images as convert
from benchmarks.recipes.budget import Budget
from contracts.condition import Condition
from contracts.maps import MapSpec
from models.diffusion.denoiser import condition_vector

Array = NDArray[np.float32]

STEPS = 1000
_GROUPS = 32


@dataclass(frozen=True, slots=True)
class DiffusionRecipe:
    """A tutorial's network, noise schedule and optimizer.

    Parameters
    ----------
    channels, attention, res_blocks, head_channels : of `DiffusionModelUNet`, per level.
    schedule : name and arguments of the noise schedule, 1000 steps; epsilon prediction.
    batch : images per step: slices in 2D, volumes in 3D.
    """

    dims: int
    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    res_blocks: int
    head_channels: tuple[int, ...]
    learning_rate: float
    batch: int
    schedule: Mapping[str, Any] = field(default_factory=dict)

    def narrowed(self, divisor: int) -> DiffusionRecipe:
        """The same network with its widths divided; none below the 32 groups of its norms."""
        return replace(
            self,
            channels=tuple(max(_GROUPS, c // divisor) for c in self.channels),
            head_channels=tuple(h and max(_GROUPS, h // divisor) for h in self.head_channels),
        )

    @property
    def multiple(self) -> int:
        """What every side of an image has to be a multiple of."""
        return int(2 ** (len(self.channels) - 1))

    def network(self, channels: int, context: int | None = None) -> nn.Module:
        """A fresh network for images of this many channels, and a context of this many numbers."""
        from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

        unet: nn.Module = DiffusionModelUNet(
            spatial_dims=self.dims,
            in_channels=channels,
            out_channels=channels,
            channels=self.channels,
            attention_levels=self.attention,
            num_res_blocks=self.res_blocks,
            num_head_channels=self.head_channels,
            with_conditioning=context is not None,
            cross_attention_dim=context,
        )
        return unet

    def scheduler(self, evaluations: int = STEPS) -> Any:
        """The tutorial's DDPM scheduler, or DDIM (Song et al. 2021) for fewer evaluations."""
        from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

        kind = DDPMScheduler if evaluations >= STEPS else DDIMScheduler
        scheduler = kind(num_train_timesteps=STEPS, **self.schedule)
        scheduler.set_timesteps(num_inference_steps=min(evaluations, STEPS))
        return scheduler


# MONAI tutorials, generation/2d_ddpm and 3d_ddpm. Their batches (128 slices, 8 or 16 volumes) are
# for GPUs: of a few minutes on a CPU such batches would make a handful of steps.
DDPM_2D = DiffusionRecipe(2, (128, 256, 256), (False, True, True), 1, (256,) * 3, 2.5e-5, 16)
DDPM_3D = DiffusionRecipe(
    3, (256, 256, 512), (False, False, True), 2, (0, 0, 512), 5e-5, 2,
    {"schedule": "scaled_linear_beta", "beta_start": 0.0005, "beta_end": 0.0195},
)  # fmt: skip


class PixelDiffusion:
    """A DDPM of volumes (3D), or of their axial slices (2D).

    3D is unconditional, as its tutorial is: ages and sexes come out as they do. A 2D model of all
    slices that does not know which one it draws could not make a volume, so that 2D is given
    position, age and sex as the context of cross-attention, the way of MONAI's tutorial of
    conditional 2D diffusion (classifier_free_guidance, here without guidance). Slices are drawn
    each by itself. The 2D tutorial's random affine transforms are left out: brains are registered.
    """

    def __init__(
        self, recipe: DiffusionRecipe, shape: Sequence[int], maps: tuple[MapSpec, ...], seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.shape, self.maps = recipe, tuple(shape), maps
        self.unet = recipe.network(len(maps), 3 if recipe.dims == 2 else None)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All that is trained."""
        return (self.unet,)

    def train(self, volumes: Array, conditions: Sequence[Condition], budget: Budget) -> int:
        """Train on (n, maps, X, Y, Z) in physical units; returns the steps made."""
        from monai.inferers import DiffusionInferer

        images = convert.to_images(volumes, self.maps)
        context = condition_vector(conditions)
        inferer = DiffusionInferer(self.recipe.scheduler())
        optimizer = torch.optim.Adam(self.unet.parameters(), lr=self.recipe.learning_rate)
        self.unet.train()
        done = 0
        for step in budget:
            batch, condition = self._batch(images, context)
            eps = torch.randn_like(batch)
            t = torch.randint(0, STEPS, (len(batch),))
            optimizer.zero_grad(set_to_none=True)
            predicted = inferer(batch, self.unet, eps, t, condition=condition)
            torch.autograd.backward(nn.functional.mse_loss(predicted, eps))
            optimizer.step()
            done = step + 1
        self.unet.eval()
        return done

    def sample(
        self, conditions: Sequence[Condition], seeds: Sequence[int], evaluations: int
    ) -> Array:
        """One volume per condition and seed, physical units; `evaluations` 1000 is the tutorial's
        own sampler."""
        from monai.inferers import DiffusionInferer

        scheduler = self.recipe.scheduler(evaluations)
        inferer = DiffusionInferer(scheduler)
        drawn = []
        together = 1 if self.recipe.dims == 2 else 2
        for start in range(0, len(seeds), together):
            chosen = slice(start, start + together)
            torch.manual_seed(seeds[start])
            first = convert.noise(seeds[chosen], (len(self.maps), *self.shape))
            condition = None
            if self.recipe.dims == 2:
                first = _slices(first)
                condition = _context(condition_vector(conditions[chosen]), self.shape[-1])
            made = inferer.sample(
                convert.pad(first, self.recipe.multiple), self.unet, scheduler,
                conditioning=condition, verbose=False,
            )  # fmt: skip
            made = convert.crop(made, self.shape[: self.recipe.dims])
            if self.recipe.dims == 2:
                made = made.permute(1, 2, 3, 0)[None]
            drawn.append(made)
        return convert.to_volumes(torch.cat(drawn), self.maps)

    def _batch(self, images: Tensor, context: Tensor) -> tuple[Tensor, Tensor | None]:
        rows = torch.randint(0, len(images), (self.recipe.batch,))
        if self.recipe.dims == 3:
            return convert.pad(images[rows], self.recipe.multiple), None
        depth = images.shape[-1]
        at = torch.randint(0, depth, (self.recipe.batch,))
        condition = torch.stack(
            [_context(context[r : r + 1], depth)[z] for r, z in zip(rows, at, strict=True)]
        )
        return convert.pad(images[rows, ..., at], self.recipe.multiple), condition


def _slices(volumes: Tensor) -> Tensor:
    """(1, C, X, Y, Z) -> (Z, C, X, Y)."""
    return volumes[0].permute(3, 0, 1, 2)


def _context(condition: Tensor, depth: int) -> Tensor:
    """Position from -1 to 1, age and sex of all slices of a volume, (Z, 1, 3)."""
    position = torch.linspace(-1, 1, depth)[:, None]
    return torch.cat([position, condition.expand(depth, -1)], dim=1)[:, None]
