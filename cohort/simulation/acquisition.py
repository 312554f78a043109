"""What a scanner does to tissue: diffusion weighting, T2 weighting and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FREE_WATER = 3.0  # um2/ms at 37 C
_B0_VOLUMES, _DIRECTIONS, _SHELLS = 3, 30, (1000.0, 2000.0)
_SIGNAL = 1000.0  # of white matter without diffusion weighting, in scanner units
# Order of the six tensor elements below.
_ELEMENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, slots=True)
class Site:
    """One scanner.

    Parameters
    ----------
    name : site label of participants.tsv.
    snr : of white matter in an unweighted volume of 2 mm voxels.
    grey_weight, fluid_weight : T2 weight of a tissue next to white matter's.
    fa_scale, md_scale : what gradient calibration and diffusion time do to FA and MD of tissue.
    """

    name: str
    snr: float
    grey_weight: float
    fluid_weight: float
    fa_scale: float
    md_scale: float


SITE_A = Site("A", snr=24.0, grey_weight=1.20, fluid_weight=2.4, fa_scale=1.0, md_scale=1.0)
SITE_B = Site("B", snr=16.0, grey_weight=1.35, fluid_weight=3.2, fa_scale=0.94, md_scale=1.05)


@dataclass(frozen=True, slots=True)
class Protocol:
    """b-values (V,) in s/mm2 and unit b-vectors (V, 3) in RAS+."""

    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]

    def up_to(self, max_bvalue: float) -> Protocol:
        """The volumes with at most this b-value."""
        keep = self.bvals <= max_bvalue
        return Protocol(self.bvals[keep], self.bvecs[keep])


def protocol() -> Protocol:
    """3 unweighted volumes, 30 at b = 1000 and 30 at b = 2000 s/mm2, as CamCAN's (Taylor 2017)."""
    bvals = np.concatenate([np.zeros(_B0_VOLUMES), *[np.full(_DIRECTIONS, b) for b in _SHELLS]])
    shells = [_hemisphere(_DIRECTIONS, turn) for turn in (0.0, 0.5)]
    return Protocol(bvals, np.concatenate([np.zeros((_B0_VOLUMES, 3)), *shells]))


def _hemisphere(count: int, turn: float) -> NDArray[np.float64]:
    """Evenly spread unit vectors: a golden spiral on the upper half of the sphere."""
    k = np.arange(count)
    z = 1 - (k + 0.5) / count
    angle = np.pi * (3 - np.sqrt(5)) * (k + turn)
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


@dataclass(frozen=True, slots=True)
class Compartment:
    """A tissue with an axially symmetric tensor in each of n voxels.

    Parameters
    ----------
    fraction : (n,) share of the voxel.
    fa : (n,) of the tissue itself.
    md : (n,) in um2/ms.
    direction : (n, 3) unit vectors.
    """

    fraction: Array
    fa: Array
    md: Array
    direction: Array

    def part(self, inside: NDArray[np.bool_]) -> Compartment:
        """The voxels chosen by `inside` (n,)."""
        return Compartment(
            self.fraction[inside], self.fa[inside], self.md[inside], self.direction[inside]
        )

    def attenuation(self, protocol: Protocol) -> Array:
        """Signal next to the unweighted one, (n, V)."""
        # Eigenvalues md (1 + 2d), md (1 - d), md (1 - d) have this FA.
        delta = self.fa / np.sqrt(3 - 2 * self.fa**2)
        radial = self.md * (1 - delta)
        gap = 3 * self.md * delta
        v = self.direction
        tensor = np.stack([radial * (i == j) + gap * v[:, i] * v[:, j] for i, j in _ELEMENTS], 1)
        b, g = protocol.bvals / 1000, protocol.bvecs
        weights = np.stack([(1 + (i != j)) * b * g[:, i] * g[:, j] for i, j in _ELEMENTS])
        decay: Array = np.exp(-tensor.astype(np.float32) @ weights.astype(np.float32))
        return decay


def signal(
    white: Compartment, grey: Compartment, fluid: Array, gain: Array, site: Site, scheme: Protocol
) -> Array:
    """Noise-free signal of a three-compartment voxel, (n, V).

    Parameters
    ----------
    fluid : (n,) share of freely diffusing water.
    gain : (n,) receive sensitivity.
    """
    free = np.exp(-FREE_WATER * scheme.bvals / 1000).astype(np.float32)
    total = white.fraction[:, None] * white.attenuation(scheme)
    total += site.grey_weight * grey.fraction[:, None] * grey.attenuation(scheme)
    total += site.fluid_weight * fluid[:, None] * free
    scaled: Array = (np.float32(_SIGNAL) * gain[:, None] * total).astype(np.float32)
    return scaled


def rician(clean: Array, site: Site, zoom_mm: float, seed: tuple[int, ...]) -> Array:
    """Magnitude signal with the noise of `site` (Gudbjartsson & Patz, MRM 1995), (n, V).

    Each volume has a random stream of its own, so that leaving out the last ones changes nothing.
    Bigger voxels average the noise of the 2 mm voxels in them.
    """
    noise = np.float32(_SIGNAL / site.snr * (2.0 / zoom_mm) ** 1.5)
    noisy = np.empty_like(clean)
    for volume in range(clean.shape[1]):
        stream = np.random.default_rng((*seed, volume))
        real, imaginary = stream.standard_normal((2, len(clean)), dtype=np.float32) * noise
        noisy[:, volume] = np.hypot(clean[:, volume] + real, imaginary)
    return noisy
