"""A generator's denoiser and its training data, of the right shapes but without any subjects.

Memory and time of a training depend on shapes alone, so that they can be told before there are
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cohort.group_template import AXES, GroupTemplate
from cohort.template_estimator import FINER
from contracts.space import Space
from models.config import DiffusionConfig, Dim, NetworkConfig
from models.diffusion.denoiser import Denoiser
from models.diffusion.loss import TrainingLoss
from models.prior.covariance import Covariance
from models.prior.prior import Prior
from models.prior.stationary import StationaryField
from training.dataset import TrainingImages

# The maps FA and MD, and the components that the prior keeps at most.
MAPS = 2
MODES = 4


@dataclass(frozen=True, slots=True)
class Training:
    """All that a training works on; without an adapter it trains the whole network."""

    loss: TrainingLoss
    trainable: Sequence[nn.Parameter]
    data: TrainingImages

    def adapted(self, method: str, settings: dict[str, Any] | None = None) -> Training:
        """Returns the training of an adapter of the same network, which is changed."""
        from models.adapters.adapter import Adapter
        from models.adapters.method import method as named

        adapter = Adapter(self.loss.denoiser.network, named(method, settings or {}))
        return replace(self, trainable=adapter.parameters())


def training(dim: Dim, space: Space, network: NetworkConfig, method: str | None = None) -> Training:
    """Returns a training of a base, or of an adapter by a method, on two made-up subjects."""
    made = denoiser(dim, space, network)
    whole = Training(TrainingLoss(made), list(made.network.parameters()), training_images(2, space))
    return whole if method is None else whole.adapted(method)


def denoiser(
    dim: Dim,
    space: Space,
    network: NetworkConfig,
    diffusion: DiffusionConfig | None = None,
    modes: int = MODES,
) -> Denoiser:
    """Returns a denoiser with random weights on a prior of white noise.

    Its last layer, which is zero before any training, has small weights, so that adapters take it
    for a trained one.

    Parameters
    ----------
    modes : K, rows of the spectral basis's two matrices; their values are of no account.
    """
    channels, shape = MAPS + 1, space.shape
    fine = (FINER * (n - 1) + 1 for n in shape)
    template = GroupTemplate(
        image=_zeros(channels, *fine),
        effects=_zeros(4, channels, *shape),
        centre=np.zeros(4, dtype=np.float32),
        inverse_sd=_zeros(channels, *shape),
        mask=np.ones(shape, dtype=bool),
        sigma=1.0,
    )
    prior = Prior(
        template=template,
        coefficients=_zeros(4, channels + AXES, *shape),
        scale=_zeros(channels + AXES, *shape),
        map_covariance=_white(MAPS, shape),
        shape_field=StationaryField(_zeros(1 + AXES, *(n + 1 for n in shape))),
        site_gain=np.ones(channels, dtype=np.float32),
    )
    made = Denoiser(dim, prior, network, (diffusion or DiffusionConfig()).path)
    # A decomposition of real modes takes more memory for a moment than some trainings do.
    for name in ("reflectors", "rotated"):
        setattr(made.basis, name, torch.full((modes, MAPS * int(np.prod(shape))), 1e-6))
    with torch.no_grad():
        for parameter in made.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return made


def training_images(count: int, space: Space, entries: int = 2) -> TrainingImages:
    """Returns what a network sees of so many made-up subjects.

    Parameters
    ----------
    entries : E, of the condition vector without position and null token.
    """
    rng = np.random.default_rng(0)
    values = rng.standard_normal((count, 2 * MAPS + 1, *space.shape), dtype=np.float32)
    return TrainingImages(values, torch.zeros(count, entries))


def _white(channels: int, shape: tuple[int, ...]) -> Covariance:
    return Covariance(
        power=np.ones((channels, *shape), dtype=np.float32),
        modes=np.zeros((0, channels, *shape), dtype=np.float16),
        variance=np.zeros(0, dtype=np.float32),
    )


def _zeros(*shape: int) -> NDArray[np.float32]:
    """Returns zeros that take no memory, for what training does not read."""
    return np.broadcast_to(np.float32(0), shape)
