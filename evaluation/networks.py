"""Small convolutional networks that predict age and sex from volumes, and their training.

2D networks see axial slices, whose predictions are averaged; 3D networks see whole volumes.
Nothing is chosen by looking at test subjects: there is no early stopping and no validation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec
from evaluation.volume_set import VolumeSet

if TYPE_CHECKING:
    import torch

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]

CHANNELS = {"2d": (16, 32, 64, 64), "3d": (8, 16, 32)}
# Slices are used that contain more brain than this share of the fullest slice.
_MIN_BRAIN_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How the networks are built and trained; the same for every training set.

    The defaults were chosen on real training subjects of the simulated cohort at 4 mm.

    Parameters
    ----------
    dim : ``2d`` or ``3d``.
    epochs : passes over the real training subjects; every training set gets that many steps.
    seeds : trainings per training set. Each has its own initial weights and order and, where one
        set is larger than the other, its own choice of as many subjects.
    seed : the first seed.
    batch : subjects per step, at least 2.
    slices : slices drawn from each subject; 2D only.
    channels : of each level, which halves the resolution; None: `CHANNELS`. In 3D, a fourth level
        memorised 60 subjects; a finer grid may need it for a larger receptive field.
    learning_rate, weight_decay : of AdamW; the rate falls to zero along a half cosine.
    draws : of the bootstrap.
    """

    dim: Literal["2d", "3d"]
    epochs: int = 40
    seeds: int = 5
    seed: int = 0
    batch: int = 4
    slices: int = 8
    channels: tuple[int, ...] | None = None
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    draws: int = 2000


class Predictions(NamedTuple):
    """Predictions of one trained network for the test subjects.

    Parameters
    ----------
    age : (test,), years.
    male : (test,), log odds of being male.
    """

    age: Float64Array
    male: Float64Array


class TrainingPool:
    """Real and, after them, synthetic volumes as the networks see them."""

    def __init__(
        self,
        real: VolumeSet,
        synthetic: VolumeSet,
        maps: tuple[MapSpec, ...],
        settings: NetworkSettings,
    ) -> None:
        self.maps, self.dim = maps, settings.dim
        self.volumes: list[Float32Array] = [*real.volumes, *synthetic.volumes]
        conditions = [*real.conditions, *synthetic.conditions]
        self.age = np.array([c.age for c in conditions], dtype=np.float32)
        self.male = np.array([c.sex == "M" for c in conditions], dtype=np.float32)
        # The choice of slices rests on the real volumes alone, so that it is the same for all
        # training and test sets.
        area = (real.volumes[:, 0] > 0).mean(axis=(0, 1, 2))
        self.brain_slices = np.flatnonzero(area > _MIN_BRAIN_SHARE * area.max())

    def images(self, volume: Float32Array, slices: IndexArray) -> Float32Array:
        """Returns a volume as a batch of network inputs.

        Parameters
        ----------
        volume : (maps, X, Y, Z) in physical units.
        slices : the slices to return; 2D only.

        Returns
        -------
        3D: (1, maps, X, Y, Z). 2D: (slices, maps + 1, X, Y), where the last channel is the
        height of the slice, from -1 at the lowest to 1 at the highest.
        """
        if self.dim == "3d":
            return to_network_range(volume, self.maps)[None]
        planes = np.moveaxis(to_network_range(volume[..., slices], self.maps), -1, 0)
        ends = [self.brain_slices[0], self.brain_slices[-1]]
        height = np.interp(slices, ends, [-1, 1]).astype(np.float32)
        shape = (len(slices), 1, *planes.shape[2:])
        heights = np.broadcast_to(height[:, None, None, None], shape)
        return np.concatenate([planes, heights], axis=1)


def to_network_range(volume: Float32Array, maps: tuple[MapSpec, ...]) -> Float32Array:
    """Returns (maps, X, Y, Z) in network range; impossible values are clipped."""
    images = zip(volume, maps, strict=True)
    return np.stack([m.to_network(m.clip(np.nan_to_num(v, nan=0.0))) for v, m in images])


def train_and_predict(
    pool: TrainingPool,
    rows: IndexArray,
    test: VolumeSet,
    steps: int,
    settings: NetworkSettings,
    seed: int,
) -> Predictions:
    """Trains one network on some rows of the pool and predicts the test subjects' age and sex."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

    mean, sd = float(pool.age[rows].mean()), float(max(pool.age[rows].std(), 1e-3))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = _network(settings, len(pool.maps), seed).to(device)
    optimizer = torch.optim.AdamW(
        network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
    )
    for step, (images, row_of) in enumerate(_batches(pool, rows, steps, settings, seed)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        output = network(torch.from_numpy(images).to(device))
        age = torch.from_numpy((pool.age[row_of] - mean) / sd).to(device)
        male = torch.from_numpy(pool.male[row_of]).to(device)
        loss = mse_loss(output[:, 0], age) + binary_cross_entropy_with_logits(output[:, 1], male)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()
    outputs = []
    with torch.inference_mode():
        for volume in test.volumes:
            images = pool.images(volume, pool.brain_slices)
            outputs.append(network(torch.from_numpy(images).to(device)).mean(dim=0).tolist())
    standard_age, log_odds = np.array(outputs).T
    return Predictions(mean + sd * standard_age, log_odds)


def _batches(
    pool: TrainingPool, rows: IndexArray, steps: int, settings: NetworkSettings, seed: int
) -> Iterator[tuple[Float32Array, IndexArray]]:
    """Yields images and the pool's row of each, in random order and epoch after epoch.

    Every second volume, at random, is mirrored at the midline, which changes neither age nor sex.
    """
    rng = np.random.default_rng((seed, 2))
    queue = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(queue) < settings.batch:
            queue = np.concatenate([queue, rng.permutation(rows)])
        taken, queue = queue[: settings.batch], queue[settings.batch :]
        images = []
        for row in taken:
            volume = pool.volumes[row] if rng.random() < 0.5 else pool.volumes[row][:, ::-1]
            slices = pool.brain_slices
            if pool.dim == "2d":
                slices = rng.choice(pool.brain_slices, settings.slices)
            images.append(pool.images(volume, slices))
        row_of = np.repeat(taken, [len(i) for i in images])
        yield np.ascontiguousarray(np.concatenate(images)), row_of


def _network(settings: NetworkSettings, maps: int, seed: int) -> torch.nn.Module:
    """Returns strided convolutions with two outputs: standardised age, log odds of being male.

    Group normalisation removes the overall level of an image, which age changes most. Therefore
    the first level has none, and the spatial averages of all levels are inputs of the last layer.
    These averages differ little between people; a batch normalisation scales them up. (Without
    it, 300 steps were not enough to tell men with a bright spot from women.)
    """
    import torch
    from torch import nn

    channels = settings.channels or CHANNELS[settings.dim]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            conv = nn.Conv2d if settings.dim == "2d" else nn.Conv3d
            self.levels = nn.ModuleList()
            width = maps + (settings.dim == "2d")
            for i, wider in enumerate(channels):
                norm = nn.GroupNorm(math.gcd(4, width), width) if i else nn.Identity()
                layer = conv(width, wider, kernel_size=3, stride=2, padding=1)
                self.levels.append(nn.Sequential(norm, layer, nn.SiLU()))
                width = wider
            self.out = nn.Sequential(nn.BatchNorm1d(sum(channels)), nn.Linear(sum(channels), 2))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            averages = []
            for level in self.levels:
                images = level(images)
                averages.append(images.flatten(2).mean(dim=2))
            output: torch.Tensor = self.out(torch.cat(averages, dim=1))
            return output

    # The seed must not change the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network()
