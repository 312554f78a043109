"""The denoiser: a closed-form estimate plus what a 2D or 3D network adds to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from contracts.condition import Condition
from models.config import Dim, NetworkConfig, PathConfig
from models.field import Waves, spread
from models.gaussian import contrasts
from models.network import PatchUNet
from models.path import Path
from models.prior import Prior

# Shapes: B volumes, C channels (maps and level set), X Y Z voxels, S slices, E condition entries.

# A 2D network sees its slice and one neighbour on either side, so that slices that are denoised
# side by side agree with each other.
_NEIGHBOURS = 1
_AXES = {"sagittal": 2, "coronal": 3, "axial": 4}


class Estimate(NamedTuple):
    """Estimates of the clean residual, and their parts.

    Parameters
    ----------
    clean : start + scale * output of the network; (B, C, X, Y, Z), or for slices with S in the
        place of the plane's axis.
    scale : k, (B, 1, 1, 1, 1).
    known : the part of `clean` that samplers treat in closed form: the Gaussian estimate, or 0.
    unit : of the rest, (B, 1, 1, 1, 1): standard deviation that the Gaussian model leaves, or 1.
    """

    clean: Tensor
    scale: Tensor
    known: Tensor
    unit: Tensor

    @property
    def correction(self) -> Tensor:
        """What samplers integrate: `clean` beyond `known`, in units."""
        return (self.clean - self.known) / self.unit

    def bounded(self, farthest: float) -> Estimate:
        """With `clean` kept inside +-farthest, or where `known` lies beyond, by `known`."""
        low, high = self.known.clamp(max=-farthest), self.known.clamp(min=farthest)
        return self._replace(clean=self.clean.clamp(low, high))

    def guided(self, null: Estimate, guidance: float) -> Estimate:
        """With `clean` moved away from that of the null token: null + guidance * (clean - null)
        (Ho & Salimans 2022, eq. 6, whose w is guidance - 1)."""
        return self._replace(clean=null.clean + guidance * (self.clean - null.clean))


class Denoiser(nn.Module):
    """Estimates the clean residual r_0 from r_t = a r_0 + s eps, eps ~ N(0, 1).

    Start ``gaussian``: for a Gaussian field that the orthonormal transform F makes independent,
    of power S, the best estimate is the Wiener filter
    E[r_0 | r_t] = F^-1 [ a S / (a^2 S + s^2) F r_t ], with variance s^2 S / (a^2 S + s^2) left to
    each coefficient. The network's output is scaled and added; by the root of the mean of these
    variances for prediction ``matched`` (the skip and output scalings of Karras et al. 2022,
    eq. 7, for coloured data). Its last layer starts at zero: an untrained denoiser *is* the
    Gaussian model.

    Start ``none``: c r_t + k times the output, see `models.path.Path.scales`.

    Parameters
    ----------
    dim : ``2d``: a network over slices, given each slice's neighbours and its position, all
        slices of a volume side by side; ``3d``: a network over the volume.
    null_token : whether conditions may be withheld. The network then has one more condition
        entry, which is 1 where age and sex are not told and 0 elsewhere; its weights, one per
        unit of the first embedding layer, are the learned null token.
    """

    mask: Tensor
    scale: Tensor
    weight: Tensor
    average: Tensor

    def __init__(
        self,
        dim: Dim,
        prior: Prior,
        config: NetworkConfig,
        path: PathConfig,
        null_token: bool = False,
    ) -> None:
        super().__init__()
        self.dim: Dim = dim
        self.null_token = null_token
        self.axis = _AXES[config.plane]
        self.path = Path(path)
        self.gaussian = self.path.config.start == "gaussian"
        channels = prior.channels
        self.register_buffer("mask", torch.from_numpy(prior.mask.astype("float32")))
        self.waves = Waves(prior.covariance)
        importance = prior.importance()
        peak = importance.max(axis=(1, 2, 3), keepdims=True)
        self.register_buffer("scale", torch.from_numpy(importance / peak))
        # Of errors in training, see `models.loss`.
        weight = self.scale**2 * self.mask
        weight = weight * (self.mask.sum() / weight.sum(dim=(1, 2, 3), keepdim=True))
        self.register_buffer("weight", weight)
        if null_token:
            self.register_buffer("average", torch.from_numpy(prior.average()))
        # Noisy image, Gaussian estimate if any, conditional mean and local scale.
        window = 2 * _NEIGHBOURS + 1 if dim == "2d" else 1
        self.network = PatchUNet(
            dims=2 if dim == "2d" else 3,
            in_channels=(2 if self.gaussian else 1) * channels * window + 2 * channels,
            out_channels=channels,
            condition_size=2 + max(len(prior.sites) - 1, 0) + null_token + (dim == "2d"),
            config=config,
        )

    def wiener(self, noisy: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """The Gaussian estimate (B, C, X, Y, Z); a and s are (B, 1, 1, 1, 1)."""
        power = self.waves.power
        kept = a * power / (a**2 * power + s**2)
        # In bf16 the rounding would near the image be as large as what is left to the network.
        with torch.autocast(noisy.device.type, enabled=False):
            return self.waves.inverse(self.waves(noisy) * kept) * self.mask

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        condition: Tensor,
        mean: Tensor,
        slices: Tensor | None = None,
        withheld: Tensor | None = None,
    ) -> Estimate:
        """Estimate the clean residual.

        Parameters
        ----------
        noisy : r_t, (B, C, X, Y, Z).
        t : (B,).
        condition : (B, 2 + S), see `models.generator.condition_vector`.
        mean : conditional mean volume, (B, C, X, Y, Z).
        slices : 2D only: (B, S) numbers of the slices to estimate; default all of them.
        withheld : (B,) whether the network sees the null token and the mean over the training
            subjects instead of condition and conditional mean; default none. r_t itself stays
            relative to the conditional mean.
        """
        if withheld is not None:
            mean = torch.where(withheld.view(-1, 1, 1, 1, 1), self.average, mean)
        condition = self._told(condition, withheld)
        a, s = (part.view(-1, 1, 1, 1, 1) for part in self.path(t))
        through, scale = self.path.scales(a, s)
        if self.gaussian:
            start = self.wiener(noisy, a, s)
            unit, moving = spread(self.waves.power, a, s), torch.cat([noisy, start], dim=1)
            scale = unit if self.path.config.prediction == "matched" else scale
        else:
            start, unit, moving = through * noisy * self.mask, torch.ones_like(a), noisy
        still = torch.cat([mean, self.scale.expand_as(mean)], dim=1)
        if self.dim == "3d":
            output = self.network(torch.cat([moving, still], dim=1), t, condition)
        else:
            output = self._slicewise(moving, still, t, condition, slices)
        start = self.take(start, slices)
        output = output * self.take(self.mask.expand_as(noisy[:, :1]), slices)
        known = start if self.gaussian else torch.zeros_like(start)
        return Estimate(start + scale * output, scale, known, unit)

    def _told(self, condition: Tensor, withheld: Tensor | None) -> Tensor:
        if not self.null_token:
            return condition
        if withheld is None:
            withheld = torch.zeros(len(condition), dtype=torch.bool, device=condition.device)
        null = withheld[:, None]
        return torch.cat([condition.masked_fill(null, 0), null.to(condition.dtype)], dim=1)

    def take(self, volumes: Tensor, slices: Tensor | None) -> Tensor:
        """The given (B, S) slices of (B, C, X, Y, Z) volumes; None means all."""
        if slices is None:
            return volumes
        moved = volumes.movedim(self.axis, -1)
        at = slices[:, None, None, None, :].expand(*moved.shape[:-1], -1)
        return moved.gather(-1, at).movedim(-1, self.axis)

    def _slicewise(
        self, moving: Tensor, still: Tensor, t: Tensor, condition: Tensor, slices: Tensor | None
    ) -> Tensor:
        moving, still = moving.movedim(self.axis, -1), still.movedim(self.axis, -1)
        depth = moving.shape[-1]
        if slices is None:
            slices = torch.arange(depth, device=moving.device).expand(len(moving), -1)
        moving = nn.functional.pad(moving, (_NEIGHBOURS, _NEIGHBOURS))
        rows = torch.arange(len(moving), device=moving.device)[:, None]
        # Advanced indices around a slice put their axes first: (B, S, channels, rows, columns).
        window = [moving[rows, ..., slices + k] for k in range(2 * _NEIGHBOURS + 1)]
        images = torch.cat([*window, still[rows, ..., slices]], dim=2).flatten(0, 1)
        position = 2 * slices / (depth - 1) - 1
        conditions = torch.cat(
            [condition[:, None].expand(-1, slices.shape[1], -1), position[..., None]], dim=2
        ).flatten(0, 1)
        output: Tensor = self.network(images, t.repeat_interleave(slices.shape[1]), conditions)
        volumes = output.view(*slices.shape, *output.shape[1:]).permute(0, 2, 3, 4, 1)
        return volumes.movedim(-1, self.axis)


def condition_vector(conditions: Sequence[Condition], sites: Sequence[str] = ()) -> Tensor:
    """Age, sex and `models.gaussian.contrasts` of sites as the network reads them, (n, 2 + S)."""
    rows = [((c.age - 50.0) / 20.0, 0.5 if c.sex == "M" else -0.5) for c in conditions]
    known = torch.tensor(rows, dtype=torch.float32)
    return torch.cat([known, torch.from_numpy(contrasts(conditions, sites)).float()], dim=1)
