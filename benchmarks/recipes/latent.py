"""MONAI's 3D latent diffusion tutorial, and what the source repository made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.recipes import images as convert
from benchmarks.recipes.budget import Budget
from benchmarks.recipes.diffusion import STEPS, DiffusionRecipe
from contracts.condition import Condition, Sex
from contracts.maps import MapSpec

Array = NDArray[np.float32]

_ADVERSARIAL, _KL = 0.01, 1e-6


@dataclass(frozen=True, slots=True)
class LatentRecipe:
    """An autoencoder and a diffusion network on its latents.

    Parameters
    ----------
    channels : of `AutoencoderKL`, per level; 16 norm groups, attention at the last level.
    first_stage : share of the budget that trains the autoencoder.
    warm_up : epochs of the first stage before the discriminator is trained and its loss counts.
    """

    channels: tuple[int, ...]
    latents: int
    diffusion: DiffusionRecipe
    learning_rate: float
    batch: int
    first_stage: float = 0.6
    warm_up: int = 5

    def narrowed(self, divisor: int) -> LatentRecipe:
        """The same with the autoencoder's widths divided, none below its 16 norm groups."""
        channels = tuple(max(16, c // divisor) for c in self.channels)
        return replace(self, channels=channels, diffusion=self.diffusion.narrowed(divisor))


# MONAI tutorials, generation/3d_ldm: 100 and 150 epochs; the second stage's steps are shorter.
# The perceptual loss (weight 0.001) is left out: its network's weights are a download.
LDM_3D = LatentRecipe(
    channels=(32, 64, 64),
    latents=3,
    diffusion=DiffusionRecipe(
        3, (32, 64, 64), (False, True, True), 1, (0, 64, 64), 1e-4, 2,
        {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195},
    ),
    learning_rate=1e-4,
    batch=2,
)  # fmt: skip


class LatentDiffusion:
    """AutoencoderKL with an adversarial loss, then a DDPM of its latents; unconditional."""

    def __init__(
        self, recipe: LatentRecipe, shape: Sequence[int], maps: tuple[MapSpec, ...], seed: int
    ) -> None:
        from monai.networks.nets.autoencoderkl import AutoencoderKL

        torch.manual_seed(seed)
        self.recipe, self.shape, self.maps = recipe, tuple(shape), maps
        levels = len(recipe.channels)
        self.autoencoder = AutoencoderKL(
            spatial_dims=3,
            in_channels=len(maps),
            out_channels=len(maps),
            channels=recipe.channels,
            latent_channels=recipe.latents,
            num_res_blocks=(1,) * levels,
            norm_num_groups=16,
            attention_levels=tuple(i == levels - 1 for i in range(levels)),
        )
        self.unet = recipe.diffusion.network(recipe.latents)
        self.scale = 1.0

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All networks that are trained, without the discriminator."""
        return (self.autoencoder, self.unet)

    def train(self, volumes: Array, conditions: Sequence[Condition], budget: Budget) -> int:
        """Train on (n, maps, X, Y, Z) in physical units; returns the steps of both stages."""
        images = convert.pad(convert.to_images(volumes, self.maps), self._multiple)
        steps = self._encode(images, budget.share(self.recipe.first_stage))
        return steps + self._diffuse(images, budget.share(1 - self.recipe.first_stage))

    def sample(
        self, conditions: Sequence[Condition], seeds: Sequence[int], evaluations: int
    ) -> Array:
        """One volume per seed, physical units; conditions are ignored."""
        scheduler = self.recipe.diffusion.scheduler(evaluations)
        inferer = self._inferer(scheduler)
        drawn = []
        for start in range(0, len(seeds), self.recipe.batch):
            chosen = seeds[start : start + self.recipe.batch]
            torch.manual_seed(chosen[0])
            first = convert.noise(chosen, (self.recipe.latents, *self._latent[1]))
            made = inferer.sample(
                first, self.autoencoder, self.unet, scheduler, verbose=False
            )  # fmt: skip
            drawn.append(convert.crop(_plain(made), self.shape))
        return convert.to_volumes(torch.cat(drawn), self.maps)

    @property
    def _multiple(self) -> int:
        return int(2 ** (len(self.recipe.channels) - 1))

    @property
    def _latent(self) -> tuple[list[int], list[int]]:
        """Sides of the autoencoder's latents, and padded for the diffusion network."""
        inner = [-(-s // self._multiple) for s in self.shape]
        multiple = self.recipe.diffusion.multiple
        return inner, [-(-s // multiple) * multiple for s in inner]

    def _inferer(self, scheduler: Any) -> Any:
        from monai.inferers import LatentDiffusionInferer

        inner, outer = self._latent
        return LatentDiffusionInferer(
            scheduler,
            scale_factor=self.scale,
            ldm_latent_shape=outer if outer != inner else None,
            autoencoder_latent_shape=inner if outer != inner else None,
        )

    def _encode(self, images: Tensor, budget: Budget) -> int:
        from monai.losses import PatchAdversarialLoss
        from monai.networks.nets import PatchDiscriminator

        discriminator = PatchDiscriminator(
            spatial_dims=3, num_layers_d=3, channels=32, in_channels=len(self.maps),
            out_channels=1,
        )  # fmt: skip
        adversarial = PatchAdversarialLoss(criterion="least_squares")
        optimizer = torch.optim.Adam(self.autoencoder.parameters(), lr=self.recipe.learning_rate)
        second = torch.optim.Adam(discriminator.parameters(), lr=self.recipe.learning_rate)
        self.autoencoder.train()
        warm_up = self.recipe.warm_up * -(-len(images) // self.recipe.batch)
        done = 0
        for step in budget:
            batch = images[torch.randint(0, len(images), (self.recipe.batch,))]
            made, mean, sd = self.autoencoder(batch)
            loss = nn.functional.l1_loss(made, batch) + _KL * _divergence(mean, sd)
            if step >= warm_up:
                fake = discriminator(made)[-1]
                loss = loss + _ADVERSARIAL * adversarial(fake, True, for_discriminator=False)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            if step >= warm_up:
                second.zero_grad(set_to_none=True)
                wrong = adversarial(discriminator(made.detach())[-1], False, for_discriminator=True)
                wrong = wrong + adversarial(discriminator(batch)[-1], True, for_discriminator=True)
                torch.autograd.backward(_ADVERSARIAL * wrong / 2)
                second.step()
            done = step + 1
        self.autoencoder.eval()
        return done

    def _diffuse(self, images: Tensor, budget: Budget) -> int:
        recipe = self.recipe.diffusion
        with torch.no_grad():
            latents = self.autoencoder.encode_stage_2_inputs(images[: self.recipe.batch])
        self.scale = float(1 / latents.std())
        inferer = self._inferer(recipe.scheduler())
        optimizer = torch.optim.Adam(self.unet.parameters(), lr=recipe.learning_rate)
        self.unet.train()
        done = 0
        for step in budget:
            batch = images[torch.randint(0, len(images), (recipe.batch,))]
            eps = torch.randn(recipe.batch, self.recipe.latents, *self._latent[1])
            t = torch.randint(0, STEPS, (recipe.batch,))
            optimizer.zero_grad(set_to_none=True)
            # As in the tutorial, the inferer encodes the batch anew in every step.
            predicted = _plain(inferer(batch, self.autoencoder, self.unet, eps, t))
            torch.autograd.backward(nn.functional.mse_loss(predicted, eps))
            optimizer.step()
            done = step + 1
        self.unet.eval()
        return done


class BySex:
    """The source repository's recipe: a latent diffusion model of women and one of men.

    It keeps the tutorial's networks, losses and rates. What it does to the images (stretched to
    96 x 96 x 64, scaled by each one's own percentiles) is not repeated: units and shapes would be
    lost before the judge saw them.
    """

    def __init__(
        self, recipe: LatentRecipe, shape: Sequence[int], maps: tuple[MapSpec, ...], seed: int
    ) -> None:
        self.models: dict[Sex, LatentDiffusion] = {
            "F": LatentDiffusion(recipe, shape, maps, 2 * seed),
            "M": LatentDiffusion(recipe, shape, maps, 2 * seed + 1),
        }

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All networks that are trained, without the discriminators."""
        return tuple(n for model in self.models.values() for n in model.networks)

    def train(self, volumes: Array, conditions: Sequence[Condition], budget: Budget) -> int:
        """Train both; returns the steps of all stages."""
        steps = 0
        for sex, model in self.models.items():
            rows = [i for i, c in enumerate(conditions) if c.sex == sex]
            own = [conditions[i] for i in rows]
            steps += model.train(volumes[rows], own, budget.share(len(rows) / len(conditions)))
        return steps

    def sample(
        self, conditions: Sequence[Condition], seeds: Sequence[int], evaluations: int
    ) -> Array:
        """One volume per condition and seed, physical units; ages are ignored."""
        made: dict[int, Array] = {}
        for sex, model in self.models.items():
            rows = [i for i, c in enumerate(conditions) if c.sex == sex]
            own = [conditions[i] for i in rows], [seeds[i] for i in rows]
            made |= dict(zip(rows, model.sample(*own, evaluations) if rows else (), strict=True))
        return np.stack([made[i] for i in range(len(conditions))])


def _divergence(mean: Tensor, sd: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the posterior from N(0, 1), mean over volumes."""
    each: Tensor = 0.5 * (mean**2 + sd**2 - torch.log(sd**2) - 1)
    return each.flatten(1).sum(dim=1).mean()


def _plain(images: Tensor) -> Tensor:
    """A tensor without MONAI's meta data, which its padding of latents leaves on."""
    return images.as_tensor() if hasattr(images, "as_tensor") else images
