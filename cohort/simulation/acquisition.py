"""What a scanner makes of tissue: diffusion weighting, T2 weighting and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

FREE_WATER = 3.0  # Diffusivity of free water at 37 C, in um2/ms.
_UNWEIGHTED, _DIRECTIONS, _SHELLS = 3, 30, (1000.0, 2000.0)
# Signal of white matter without diffusion weighting, in scanner units.
_SIGNAL = 1000.0
# Row and column of the six elements of a symmetric tensor, in the order used below.
_ELEMENTS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


@dataclass(frozen=True, slots=True)
class Scanner:
    """One simulated scanner.

    Parameters
    ----------
    site : the site's label in participants.tsv.
    snr : signal-to-noise ratio of white matter in an unweighted volume of 2 mm voxels.
    grey_weight, fluid_weight : T2-weighted signal of the tissue relative to white matter.
    fa_scale, md_scale : factors on FA and MD of tissue, which stand for differences in gradient
        calibration and diffusion time.
    """

    site: str
    snr: float
    grey_weight: float
    fluid_weight: float
    fa_scale: float
    md_scale: float


SCANNER_A = Scanner("A", snr=24.0, grey_weight=1.20, fluid_weight=2.4, fa_scale=1.0, md_scale=1.0)
SCANNER_B = Scanner("B", snr=16.0, grey_weight=1.35, fluid_weight=3.2, fa_scale=0.94, md_scale=1.05)


@dataclass(frozen=True, slots=True)
class GradientScheme:
    """The diffusion weighting of each volume of a series.

    Parameters
    ----------
    bvals : (V,) b-values in s/mm2.
    bvecs : (V, 3) unit b-vectors in RAS+; zero for an unweighted volume.
    """

    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]

    def up_to(self, max_bvalue: float) -> GradientScheme:
        """Return the scheme of the volumes with at most this b-value."""
        keep = self.bvals <= max_bvalue
        return GradientScheme(self.bvals[keep], self.bvecs[keep])


def camcan_scheme() -> GradientScheme:
    """Return a scheme of the size of CamCAN's (Taylor et al., NeuroImage 2017).

    It has 3 unweighted volumes, 30 at b = 1000 and 30 at b = 2000 s/mm2.
    """
    bvals = np.concatenate([np.zeros(_UNWEIGHTED), *[np.full(_DIRECTIONS, b) for b in _SHELLS]])
    shells = [_hemisphere(_DIRECTIONS, turn) for turn in (0.0, 0.5)]
    return GradientScheme(bvals, np.concatenate([np.zeros((_UNWEIGHTED, 3)), *shells]))


def _hemisphere(count: int, turn: float) -> NDArray[np.float64]:
    """Return evenly spread unit vectors: a golden spiral on the upper half of the sphere."""
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
    fraction : (n,) share of the voxel that the tissue fills, 0 to 1.
    fa : (n,) FA of the tissue itself.
    md : (n,) MD of the tissue itself, in um2/ms.
    direction : (n, 3) unit vectors of the main direction of diffusion.
    """

    fraction: Array
    fa: Array
    md: Array
    direction: Array

    def select(self, inside: NDArray[np.bool_]) -> Compartment:
        """Return the compartment of the voxels where `inside` (n,) is true."""
        return Compartment(
            self.fraction[inside], self.fa[inside], self.md[inside], self.direction[inside]
        )

    def attenuation(self, scheme: GradientScheme) -> Array:
        """Return the signal relative to an unweighted volume, (n, V)."""
        # The eigenvalues md (1 + 2 delta), md (1 - delta), md (1 - delta) have this FA.
        delta = self.fa / np.sqrt(3 - 2 * self.fa**2)
        radial = self.md * (1 - delta)
        gap = 3 * self.md * delta
        v = self.direction
        tensor = np.stack([radial * (i == j) + gap * v[:, i] * v[:, j] for i, j in _ELEMENTS], 1)
        b, g = scheme.bvals / 1000, scheme.bvecs
        weights = np.stack([(1 + (i != j)) * b * g[:, i] * g[:, j] for i, j in _ELEMENTS])
        decay: Array = np.exp(-tensor.astype(np.float32) @ weights.astype(np.float32))
        return decay


def signal(
    white: Compartment,
    grey: Compartment,
    fluid: Array,
    gain: Array,
    scanner: Scanner,
    scheme: GradientScheme,
) -> Array:
    """Return the noise-free signal of voxels with three compartments, (n, V).

    Parameters
    ----------
    fluid : (n,) share of the voxel that is filled with freely diffusing water.
    gain : (n,) receive sensitivity of the coil, about 1.
    """
    free = np.exp(-FREE_WATER * scheme.bvals / 1000).astype(np.float32)
    total = white.fraction[:, None] * white.attenuation(scheme)
    total += scanner.grey_weight * grey.fraction[:, None] * grey.attenuation(scheme)
    total += scanner.fluid_weight * fluid[:, None] * free
    scaled: Array = (np.float32(_SIGNAL) * gain[:, None] * total).astype(np.float32)
    return scaled


def rician(clean: Array, scanner: Scanner, zoom_mm: float, seed: tuple[int, ...]) -> Array:
    """Return the magnitude signal with Rician noise (Gudbjartsson & Patz, MRM 1995), (n, V).

    Each volume has its own random stream, so that leaving out the last volumes does not change
    the others. A larger voxel averages the noise of the 2 mm voxels in it.

    Parameters
    ----------
    clean : (n, V) noise-free signal.
    zoom_mm : voxel edge.
    """
    noise = np.float32(_SIGNAL / scanner.snr * (2.0 / zoom_mm) ** 1.5)
    noisy = np.empty_like(clean)
    for volume in range(clean.shape[1]):
        stream = np.random.default_rng((*seed, volume))
        real, imaginary = stream.standard_normal((2, len(clean)), dtype=np.float32) * noise
        noisy[:, volume] = np.hypot(clean[:, volume] + real, imaginary)
    return noisy
