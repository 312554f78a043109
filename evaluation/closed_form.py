"""Volumes of a generator's prior alone: what it makes without its network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cohort import channels
from contracts.condition import Condition
from models.generator import Generator


def closed_form_volumes(
    generator: Generator, conditions: Sequence[Condition], seeds: Sequence[int]
) -> NDArray[np.float32]:
    """Returns samples of the closed-form Gaussian model, (n, maps, X, Y, Z) in physical units.

    For the path ``flow`` they are what the generator gives for these seeds with an untrained
    network. What a generator is better than them is what training has added.

    Parameters
    ----------
    generator : whose prior is taken; of an adapted one with its site gain and shift of the mean.
    conditions, seeds : (n), one per sample.
    """
    import torch

    prior, basis = generator.prior, generator.denoiser.basis
    shape = (1, prior.channels, *prior.mask.shape)
    out = np.empty((len(seeds), len(generator.maps), *generator.space.shape), dtype=np.float32)
    for i, (condition, seed) in enumerate(zip(conditions, seeds, strict=True)):
        noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        with torch.inference_mode():
            residual = basis.draw(torch.from_numpy(noise)).numpy() * prior.mask
        encoded = prior.volume(residual.astype(np.float32), [condition])
        out[i] = channels.decode(encoded, generator.maps)[0]
    return out
