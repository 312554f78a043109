"""The prior of a latent generator: one of voxels, an autoencoder, and one of its latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from contracts.condition import Condition
from models.autoencoder import Autoencoder
from models.frame import Frame
from models.gaussian import Array
from models.prior import Prior


@dataclass(frozen=True, slots=True)
class LatentPrior:
    """A volume is written as by a prior of voxels; its residual as the decoder's image of latents;
    these as by a prior of their own.

    The autoencoder has to tell only what the voxels' mean, spread and curves leave open, and
    diffusion starts from a Gaussian here too, that of the latents.

    Parameters
    ----------
    voxels : of encoded volumes, seen as C channels (C, X, Y, Z).
    autoencoder : of its residuals.
    start : of latents (K, x, y, z); what the denoiser sees are its residuals.
    """

    voxels: Prior
    autoencoder: Autoencoder
    start: Prior

    @property
    def sites(self) -> tuple[str, ...]:
        """See `Prior.sites`."""
        return self.voxels.sites

    @property
    def frame(self) -> Frame | None:
        """See `Prior.frame`."""
        return self.voxels.frame

    @property
    def gain(self) -> Array:
        """That of the voxels."""
        return self.voxels.gain

    def residual(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """What the denoiser sees of encoded volumes, (n, K, x, y, z)."""
        return self.normal(self.standard(volumes, conditions), conditions)

    def standard(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """See `Prior.standard`."""
        return self.voxels.standard(volumes, conditions)

    def normal(
        self, standard: Array, conditions: Sequence[Condition], stretched: bool = False
    ) -> Array:
        """The same of the voxels' standard channels; see `Prior.normal`."""
        latents = self.autoencoder.encode(self.voxels.normal(standard, conditions, stretched))
        return self.start.residual(latents, conditions)

    def volume(
        self, residual: Array, conditions: Sequence[Condition], levels: Array | None = None
    ) -> Array:
        """Encoded volumes of it; inverse of `residual` but for what the latents do not hold."""
        made = self.autoencoder.decode(self.start.volume(residual, conditions))
        return self.voxels.volume(made, conditions, levels)

    def with_gain(self, volumes: Array, conditions: Sequence[Condition]) -> LatentPrior:
        """See `Prior.with_gain`; another site's residuals are encoded as the base group's."""
        return replace(self, voxels=self.voxels.with_gain(volumes, conditions))

    def scaled(self, gain: Array) -> LatentPrior:
        """This prior with another gain."""
        return replace(self, voxels=self.voxels.scaled(gain))
