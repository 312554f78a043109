"""The Gaussian baseline: regression on age and sex, and all principal components of the rest.

A generator has to be better than this. The baseline takes a second to fit and is hard to beat on
mean maps and spectra. Its samples are linear combinations of the training subjects, though: on 96
simulated subjects, the components explained all of the training variance and less than a tenth
of that of new subjects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.regression import design, regress
from contracts.condition import Condition
from contracts.maps import MapSpec
from evaluation.volume_set import VolumeSet

Float32Array = NDArray[np.float32]

# Combinations of brains of several sizes fade out at the edge and are cut at this MD, half of
# that of the tissue with the slowest diffusion. A lower limit makes the brains too large. mm2/s.
_EDGE_MD = 0.35e-3


@dataclass(frozen=True, slots=True)
class ConditionalGaussian:
    """A Gaussian distribution of D values given age and sex.

    A sample is x = mean(condition) + components^T z with independent z_k ~ N(0, sd_k^2).

    Parameters
    ----------
    coefficients : (4, D), of the regression on `cohort.regression.design`.
    components : (K, D), orthonormal rows, largest variance first.
    sd : (K,), standard deviation along each component.
    """

    coefficients: Float32Array
    components: Float32Array
    sd: Float32Array

    @classmethod
    def fit(cls, values: Float32Array, conditions: Sequence[Condition]) -> ConditionalGaussian:
        """Fits the distribution to (n, D) values.

        The components are the n - 4 principal components of the regression's residuals. Their
        variances are scaled by the residuals' n - 4 degrees of freedom.
        """
        coefficients = regress(values, conditions)
        residual = values - design(conditions) @ coefficients
        freedom = max(len(values) - len(coefficients), 1)
        # n is much smaller than D, so that the components come from the (n, n) Gram matrix.
        variance, vectors = np.linalg.eigh(residual @ residual.T)
        order = np.argsort(variance)[::-1][:freedom]
        length = np.sqrt(np.maximum(variance[order], 1e-12))
        components = (vectors[:, order] / length).T @ residual
        return cls(
            coefficients=coefficients,
            components=components.astype(np.float32),
            sd=(length / np.sqrt(freedom)).astype(np.float32),
        )

    def mean(self, conditions: Sequence[Condition]) -> Float32Array:
        """Returns the expected values, (n, D)."""
        return (design(conditions) @ self.coefficients).astype(np.float32)

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> Float32Array:
        """Returns one sample per condition, which its seed alone determines; (n, D)."""
        k = len(self.sd)
        z = [np.random.default_rng(seed).standard_normal(k, dtype=np.float32) for seed in seeds]
        deviation = (np.stack(z) * self.sd) @ self.components
        return (self.mean(conditions) + deviation).astype(np.float32)


def gaussian_volumes(
    train: VolumeSet,
    conditions: Sequence[Condition],
    seeds: Sequence[int],
    maps: tuple[MapSpec, ...],
) -> Float32Array:
    """Returns samples of the Gaussian that is fitted to the training subjects.

    Parameters
    ----------
    train : the training subjects, with the same maps.
    conditions, seeds : (n), one per sample.

    Returns
    -------
    (n, maps, X, Y, Z) in physical units.
    """
    scale = np.array([m.scale for m in maps], dtype=np.float32)[:, None, None, None]
    values = (train.volumes / scale).reshape(len(train.volumes), -1)
    samples = ConditionalGaussian.fit(values, train.conditions).sample(conditions, seeds)
    return brain_volumes(samples.reshape(len(seeds), *train.volumes.shape[1:]), maps)


def brain_volumes(images: Float32Array, maps: tuple[MapSpec, ...]) -> Float32Array:
    """Converts images in network range to volumes, for generators that have no brain mask.

    Values are clipped to the possible range. Where MD is too low for tissue, all maps are set to
    zero.

    Parameters
    ----------
    images : (n, maps, X, Y, Z).

    Returns
    -------
    (n, maps, X, Y, Z) in physical units.
    """
    volumes = np.stack([m.clip(m.from_network(images[:, i])) for i, m in enumerate(maps)], axis=1)
    md = [m.name for m in maps].index("md")
    return np.where(volumes[:, md : md + 1] > _EDGE_MD, volumes, np.float32(0))
