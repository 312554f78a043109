"""Volumes as the peers' networks take them, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contracts.maps import MapSpec
from evaluation.gaussian_baseline import brain_volumes

Array = NDArray[np.float32]


def to_images(volumes: Array, maps: tuple[MapSpec, ...]) -> Tensor:
    """(n, maps, X, Y, Z) in physical units -> one channel per map, about 0 to 1, background 0.

    The tutorials scale each image by its own range or percentiles; the units, and with them
    what tells people apart, would be lost. The scale here is fixed per map.
    """
    channels = [m.to_network(volumes[:, k]) for k, m in enumerate(maps)]
    return torch.from_numpy(np.stack(channels, axis=1))


def to_volumes(images: Tensor, maps: tuple[MapSpec, ...]) -> Array:
    """Inverse of `to_images` for brains; the background is cut as that of the Gaussian baseline."""
    return brain_volumes(np.nan_to_num(images.numpy()), maps)


def pad(images: Tensor, multiple: int) -> Tensor:
    """Zeros around (n, C, S...) until every S is a multiple."""
    widths: list[int] = []
    for size in reversed(images.shape[2:]):
        missing = -size % multiple
        widths += [missing // 2, missing - missing // 2]
    return nn.functional.pad(images, widths)


def crop(images: Tensor, shape: Sequence[int]) -> Tensor:
    """The middle (n, C, shape...); inverse of `pad`."""
    for axis, size in enumerate(shape, start=2):
        images = images.narrow(axis, (images.shape[axis] - size) // 2, size)
    return images


def noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Standard normal values of each seed, (n, shape...)."""
    drawn = [np.random.default_rng(s).standard_normal(shape, dtype=np.float32) for s in seeds]
    return torch.from_numpy(np.stack(drawn))


def digest(*networks: nn.Module) -> str:
    """Short hash of all weights."""
    content = hashlib.sha256()
    for network in networks:
        for name, tensor in sorted(network.state_dict().items()):
            content.update(name.encode())
            content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()[:16]
