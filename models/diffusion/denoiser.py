"""The denoiser: estimates the clean image from a noisy one, by a 2D or 3D network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cohort.regression import contrasts
from contracts.condition import Condition
from models.config import Dim, NetworkConfig, PathName
from models.diffusion.network import ConditionedUNet
from models.diffusion.path import ProbabilityPath
from models.prior.prior import Prior
from models.prior.spectrum import SpectralBasis, posterior_sd

# Shapes: B volumes, C channels that are generated (the maps), X Y Z voxels, S slices, K cubes of
# edge L, E condition entries.

# A 2D network sees its slice and one neighbour on either side, so that slices that are denoised
# side by side agree with each other.
_NEIGHBOURS = 1
_AXES = {"sagittal": 2, "coronal": 3, "axial": 4}
# The signed distance is in units of 3 voxels: one voxel inside the boundary becomes tanh(2 / 3).
_DISTANCE_SLOPE = 2.0
# A map that is the same everywhere in the template is not divided by its standard deviation, 0.
_LEAST_SPREAD = 1e-3
# DDPM divides by the signal a, which must not be 0.
_LEAST_SIGNAL = 1e-5


class Estimate(NamedTuple):
    """An estimate of the clean residual, and its parts.

    Parameters
    ----------
    clean : (B, C, X, Y, Z); for slices with S in the place of the plane's axis, for cubes
        (B * K, C, L, L, L).
    scale : k, factor of the network's output in it, (B, 1, 1, 1, 1); for cubes (B * K, ...).
    gaussian_mean : the part of `clean` that samplers treat in closed form: the mean of the
        Gaussian model given the noisy image, or 0 for ``ddpm``.
    gaussian_sd : standard deviation that the Gaussian model leaves, of the shape of `scale`, or 1.
    """

    clean: Tensor
    scale: Tensor
    gaussian_mean: Tensor
    gaussian_sd: Tensor

    @property
    def correction(self) -> Tensor:
        """What samplers integrate: `clean` less the Gaussian mean, in Gaussian sd."""
        return (self.clean - self.gaussian_mean) / self.gaussian_sd

    def clipped(self, limit: float) -> Estimate:
        """Returns the estimate with `clean` clipped to plus and minus `limit`."""
        return self._replace(clean=self.clean.clamp(-limit, limit))

    def guided(self, null: Estimate, guidance: float) -> Estimate:
        """Returns the estimate with null + guidance * (clean - null) in place of `clean`
        (Ho & Salimans 2022, eq. 6, whose w is guidance - 1)."""
        return self._replace(clean=null.clean + guidance * (self.clean - null.clean))


class Denoiser(nn.Module):
    """Estimates the clean residual r_0 from r_t = a r_0 + s eps, eps ~ N(0, 1).

    ``flow`` : for a Gaussian field with diagonal covariance P in an orthonormal basis Q, the best
        estimate is the Wiener filter E[r_0 | r_t] = Q^-1 [ a P / (a^2 P + s^2) Q r_t ], which
        leaves the variance s^2 P / (a^2 P + s^2) to each coefficient. The network's output, times
        the root of the mean of these variances, is added to it (the preconditioning of Karras et
        al. 2022, eq. 7, for a coloured Gaussian). The output starts at zero, so that an untrained
        denoiser *is* the Gaussian model.
    ``ddpm`` : the output predicts the noise, and the estimate is (r_t - s output) / a
        (Ho et al. 2020, eq. 9 and 15).

    Beside the noisy image, and for ``flow`` its Wiener filter, the network sees what is expected of
    a brain of the same shape, and how far each voxel is from its boundary
    (`models.prior.prior.Prior.expected`).

    Parameters
    ----------
    dim : ``2d``: the network sees one slice, its neighbours and its position, and all slices of a
        volume are denoised side by side; ``3d``: it sees the volume, or in training cubes of it.
    null_token : whether conditions may be withheld. The network then has one more condition
        entry, which is 1 where age and sex are withheld and 0 elsewhere; its weights in the first
        embedding layer are the learned null token.
    """

    mask: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        dim: Dim,
        prior: Prior,
        config: NetworkConfig,
        path: PathName,
        null_token: bool = False,
    ) -> None:
        super().__init__()
        self.dim: Dim = dim
        self.null_token = null_token
        self.axis = _AXES[config.plane]
        self.path = ProbabilityPath(path)
        channels = prior.map_count
        self.register_buffer("mask", torch.from_numpy(prior.mask.astype("float32")))
        self.basis = SpectralBasis(prior.map_covariance)
        image = prior.template.image
        inside = image[:-1, image[-1] >= min(0, image[-1].max())]  # the whole, if none is brain
        for name, values in (("centre", inside.mean(axis=1)), ("spread", inside.std(axis=1))):
            self.register_buffer(name, torch.from_numpy(values)[:, None, None, None])
        # The noisy image, for the flow its Gaussian estimate, and what is expected.
        images = (2 if path == "flow" else 1) * channels + len(prior.site_gain)
        window = 2 * _NEIGHBOURS + 1 if dim == "2d" else 1
        self.network = ConditionedUNet(
            dims=2 if dim == "2d" else 3,
            in_channels=images * window,
            out_channels=channels,
            condition_size=2 + max(len(prior.sites) - 1, 0) + null_token + (dim == "2d"),
            config=config,
        )

    def wiener(self, noisy: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """Returns the Gaussian mean (B, C, X, Y, Z); a and s are (B, 1, 1, 1, 1)."""
        power = self.basis.power
        kept = a * power / (a**2 * power + s**2)
        # Near the image, the rounding of bf16 would be as large as what is left to the network.
        with torch.autocast(noisy.device.type, enabled=False):
            return self.basis.inverse(self.basis(noisy) * kept) * self.mask

    def network_range(self, expected: Tensor) -> Tensor:
        """Returns what is expected, (B, C + 1, X, Y, Z), as the network sees it.

        Maps get a mean of 0 and a standard deviation of 1 over the template's brain, like the
        noisy image beside them. The signed distance is saturated within a few voxels of the
        boundary, where tissue changes from voxel to voxel.
        """
        maps = (expected[:, :-1] - self.centre) / self.spread.clamp(min=_LEAST_SPREAD)
        return torch.cat([maps, torch.tanh(_DISTANCE_SLOPE * expected[:, -1:])], dim=1)

    def forward(
        self,
        noisy: Tensor,
        t: Tensor,
        condition: Tensor,
        expected: Tensor,
        parts: Tensor | None = None,
        withheld: Tensor | None = None,
    ) -> Estimate:
        """Estimates the clean residual.

        Parameters
        ----------
        noisy : r_t, (B, C, X, Y, Z).
        t : (B,).
        condition : (B, 2 + S), see `condition_vector`.
        expected : (B, C + 1, X, Y, Z), see `Prior.expected`.
        parts : what to estimate, see `take`; default all of it.
        withheld : (B,), whether the network sees the null token instead of the condition; default
            none. r_t itself stays relative to the conditional mean.
        """
        condition = self._with_null_token(condition, withheld)
        a, s = (part.view(-1, 1, 1, 1, 1) for part in self.path(t))
        if self.path.name == "flow":
            mean = self.wiener(noisy, a, s)
            sd = posterior_sd(self.basis.power, a, s)
            start, scale = mean, sd
            images: tuple[Tensor, ...] = noisy, mean, self.network_range(expected)
        else:
            mean, sd = torch.zeros_like(noisy), torch.ones_like(a)
            signal = a.clamp(min=_LEAST_SIGNAL)
            start, scale = noisy * self.mask / signal, -s / signal
            images = noisy, self.network_range(expected)
        if self.dim == "2d":
            output = self._slicewise(images, t, condition, parts)
        else:
            cubes = 1 if parts is None else parts.shape[1]
            output = self.network(
                tuple(self.take(image, parts) for image in images),
                t.repeat_interleave(cubes),
                condition.repeat_interleave(cubes, dim=0),
            )
            scale, sd = (one.repeat_interleave(cubes, dim=0) for one in (scale, sd))
        # In place: at this moment of a training, memory is at its peak.
        output = output.mul_(self.take(self.output_mask(expected), parts))
        clean = output.mul_(scale).add_(self.take(start, parts))
        return Estimate(clean, scale, self.take(mean, parts), sd)

    def output_mask(self, expected: Tensor) -> Tensor:
        """Returns where the network's output counts, and is trained, (B, 1, X, Y, Z).

        For ``flow`` that is the brain: beyond it the Gaussian model does, so that the network is
        not trained on what nobody sees. For ``ddpm``, which has none, it is the mask.

        Parameters
        ----------
        expected : (B, C + 1, X, Y, Z).
        """
        mask = self.mask.expand_as(expected[:, -1:])
        return mask * (expected[:, -1:] > 0) if self.path.name == "flow" else mask

    def _with_null_token(self, condition: Tensor, withheld: Tensor | None) -> Tensor:
        if not self.null_token:
            return condition
        if withheld is None:
            withheld = torch.zeros(len(condition), dtype=torch.bool, device=condition.device)
        null = withheld[:, None]
        return torch.cat([condition.masked_fill(null, 0), null.to(condition.dtype)], dim=1)

    def take(self, volumes: Tensor, parts: Tensor | None) -> Tensor:
        """Returns parts of volumes (B, C, X, Y, Z).

        Parameters
        ----------
        parts : 2D: (B, S), numbers of slices; 3D: (B, K, 3, L), the voxels of cubes along each
            axis; None: all.

        Returns
        -------
        2D: slices, in the place of the plane's axis; 3D: (B * K, C, L, L, L).
        """
        if parts is None:
            return volumes
        if self.dim == "3d":
            rows = torch.arange(len(parts), device=parts.device)[:, None, None, None, None]
            x, y, z = parts.unbind(2)
            at = x[:, :, :, None, None], y[:, :, None, :, None], z[:, :, None, None, :]
            # Advanced indices around a slice put their axes first: (B, K, L, L, L, C).
            return volumes[rows, :, *at].flatten(0, 1).movedim(-1, 1).contiguous()
        moved = volumes.movedim(self.axis, -1)
        at_slices = parts[:, None, None, None, :].expand(*moved.shape[:-1], -1)
        return moved.gather(-1, at_slices).movedim(-1, self.axis)

    def _slicewise(
        self, volumes: tuple[Tensor, ...], t: Tensor, condition: Tensor, slices: Tensor | None
    ) -> Tensor:
        """Applies the 2D network to slices (B, S) of (B, C, X, Y, Z) volumes, side by side."""
        moved = [volume.movedim(self.axis, -1) for volume in volumes]
        depth, device = moved[0].shape[-1], moved[0].device
        if slices is None:
            slices = torch.arange(depth, device=device).expand(len(moved[0]), -1)
        rows = torch.arange(len(moved[0]), device=device)[:, None]
        window = []
        for k in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
            # The neighbours of the first and the last slice are zero. No volume is copied for it:
            # a step may need few of its slices.
            inside = ((slices + k >= 0) & (slices + k < depth))[..., None, None, None]
            at = (slices + k).clamp(0, depth - 1)
            # Advanced indices around a slice put their axes first: (B, S, channels, rows, columns).
            window += [volume[rows, ..., at] * inside for volume in moved]
        images = torch.cat(window, dim=2).flatten(0, 1)
        position = 2 * slices / (depth - 1) - 1
        conditions = torch.cat(
            [condition[:, None].expand(-1, slices.shape[1], -1), position[..., None]], dim=2
        ).flatten(0, 1)
        output: Tensor = self.network(images, t.repeat_interleave(slices.shape[1]), conditions)
        made = output.view(*slices.shape, *output.shape[1:]).permute(0, 2, 3, 4, 1)
        return made.movedim(-1, self.axis)


def condition_vector(conditions: Sequence[Condition], sites: Sequence[str] = ()) -> Tensor:
    """Returns age, sex and `cohort.regression.contrasts` of sites as the network reads them,
    (n, 2 + S)."""
    rows = [((c.age - 50.0) / 20.0, 0.5 if c.sex == "M" else -0.5) for c in conditions]
    known = torch.tensor(rows, dtype=torch.float32)
    return torch.cat([known, torch.from_numpy(contrasts(conditions, sites)).float()], dim=1)
