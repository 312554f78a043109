"""The first stage of a latent generator: its autoencoder, the subjects' latents, their prior."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from contracts.condition import Condition
from contracts.errors import UserError
from models.autoencoder import Autoencoder
from models.latent import LatentPrior
from models.prior import Prior
from training import cache
from training.cache import Array
from training.loop import Log, optimise, streams
from training.settings import LatentSettings

_RESIDUAL, _LATENTS, _LOOP = "voxels.npy", "latents.npy", "autoencoder"


class _Objective(nn.Module):
    """Mean absolute error inside the mask, and the divergence of the posterior."""

    def __init__(self, autoencoder: Autoencoder, mask: Array, divergence: float) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.divergence = divergence
        self.register_buffer("mask", torch.from_numpy(mask))

    def forward(self, residual: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Errors of (B, C, X, Y, Z) residuals, summed, and the number of values summed."""
        made, mean, spread = self.autoencoder(residual, noise)
        mask = self.get_buffer("mask")
        count = mask.sum() * residual[:, :, 0, 0, 0].numel()
        each = 0.5 * (mean**2 + spread**2 - 2 * torch.log(spread) - 1)
        error = ((made - residual).abs() * mask).sum()
        return error + self.divergence * each.mean() * count, count


def latent_prior(
    voxels: Prior,
    standard: Array,
    conditions: Sequence[Condition],
    settings: LatentSettings,
    work: Path,
    log: Log,
) -> LatentPrior:
    """Train an autoencoder on what a prior of voxels leaves over, and fit a prior to its latents.

    A call that was stopped goes on.

    Parameters
    ----------
    standard : (n, C, X, Y, Z), see `models.prior.Prior.standard`; it may be a memory map.
    work : folder for the residuals, the latents (memory maps) and the checkpoint.

    Raises
    ------
    UserError : if the grid is no multiple of a latent's cell, or the loss is not finite.
    """
    edge, shape = settings.autoencoder.edge, standard.shape[2:]
    if any(size % edge for size in shape):
        raise UserError(
            f"latents of {edge} voxels' edge do not tile a grid of {shape}: change patch or the "
            "number of channels in train.3d.latent.autoencoder"
        )
    grid = [size // edge for size in shape]
    count, size = len(standard), (settings.autoencoder.latents, *grid)

    def residual(i: int) -> Array:
        one: Array = voxels.normal(standard[i : i + 1], conditions[i : i + 1], True)[0]
        return one

    residuals = cache.rows(work / _RESIDUAL, standard.shape, residual, "residuals of voxels")
    autoencoder = _trained(voxels, residuals, size, settings, work / _LOOP, log)
    # Twice through the encoder rather than all latents in memory.
    autoencoder.sd.copy_(_spread(autoencoder.encode(residuals[i : i + 1]) for i in range(count)))
    latents = cache.rows(
        work / _LATENTS,
        (count, *size),
        lambda i: np.asarray(autoencoder.encode(residuals[i : i + 1])[0]),
        "latents",
    )
    cells = [n for size in grid for n in (size, edge)]
    reach = np.any(voxels.mask.reshape(cells), axis=(1, 3, 5))
    start = Prior.fit(latents, reach, conditions, voxels.sites)
    return LatentPrior(voxels, autoencoder, start)


def _trained(
    voxels: Prior,
    residuals: Array,
    size: tuple[int, ...],
    settings: LatentSettings,
    work: Path,
    log: Log,
) -> Autoencoder:
    loop = settings.loop
    torch.manual_seed(loop.seed)
    autoencoder = Autoencoder(voxels.channels, settings.autoencoder)
    autoencoder.start(np.array(one) for one in residuals)

    def draw(step: int, number: int, device: torch.device) -> tuple[Tensor, ...]:
        generator, source = streams(loop, step, number, device)
        chosen = torch.randint(len(residuals), (loop.batch,), generator=generator)
        batch = torch.from_numpy(np.array(residuals[chosen.numpy()])).to(device)
        return batch, torch.randn((loop.batch, *size), generator=source, device=device)

    optimise(
        _Objective(autoencoder, voxels.mask.astype(np.float32), settings.divergence),
        list(autoencoder.parameters()),
        draw,
        loop,
        work,
        log,
        lambda step: None,
        "train autoencoder",
    )
    return autoencoder.eval()


def _spread(latents: Iterable[Array]) -> Tensor:
    """Standard deviation (K, 1, 1, 1) of latents (1, K, x, y, z), channel by channel."""
    sums = np.zeros((3, 0))
    for one in latents:
        flat = one[0].reshape(one.shape[1], -1).astype(np.float64)
        found = np.stack([np.ones(len(flat)), flat.mean(axis=1), (flat**2).mean(axis=1)])
        sums = found if sums.size == 0 else sums + found
    count, first, second = sums
    sd = np.sqrt(np.maximum(second / count - (first / count) ** 2, 0))
    # A channel that is the same in everybody stays as it is.
    return torch.from_numpy(np.where(sd > 0, sd, 1)).float().view(-1, 1, 1, 1)
