"""The transform between a subject's volume and its description relative to the group template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort import channels
from cohort.group_template import AXES, GroupTemplate
from cohort.interpolation import LinearInterpolation, displaced, inversely_displaced, smooth
from cohort.regression import Array, design
from cohort.template_estimator import Volumes, smoothed_sd
from cohort.threads import each
from contracts.condition import Condition
from models.prior.boundary import BoundaryRegression
from models.prior.quantiles import fit_knots, from_scores, to_scores

# Correlations of channels are multiplied by this, so that each says something of its own.
_SHRINKAGE = 0.97
# Width over which correlations are pooled, in voxels.
_POOLING = 1.0
_TEMPLATE = "template."


@dataclass(frozen=True, slots=True)
class TemplateTransform:
    """Describes an encoded volume v by its displacement u to the template and normal scores z.

    At x, with y = x + u(x),

        v(x) = image(y) + q_y(L(y) z(x)) + what the distance to the boundary explains,

    with q the quantile transform of the template's voxel, and L lower triangular: how the channels
    of a voxel are correlated. The relative volume, z of every channel and then u, is what
    `models.prior.prior` models. v is not interpolated on the way, and comes back from the relative
    volume exactly (up to normal scores of 3).

    Parameters
    ----------
    template : of the group.
    boundary : regression of the maps on the distance to the boundary.
    knots : (9, C, X, Y, Z), curves as in `models.prior.quantiles`.
    channel_factor : (C, C, X, Y, Z), L; its channels count from the last one, the signed distance.
    outline_sigma : how much the outline of a sampled brain is smoothed, see `models.prior.outline`.
    """

    template: GroupTemplate
    boundary: BoundaryRegression
    knots: Array
    channel_factor: Array
    outline_sigma: float = 0.0

    @classmethod
    def fit(
        cls,
        template: GroupTemplate,
        volumes: Volumes,
        displacements: Volumes,
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
        moved: Array | None = None,
    ) -> TemplateTransform:
        """Fits boundary regression, curves and channel factor to registered subjects.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z), encoded; read several times, one at a time.
        displacements : (n, 3, X, Y, Z), of the same subjects.
        sites : that the regressions tell apart.
        moved : (n, C, X, Y, Z) that is written to, such as a memory map; default: in memory.
        """
        n, shape, mask = len(volumes), volumes[0].shape, template.mask
        if moved is None:
            moved = np.empty((n, *shape), dtype=np.float32)
        image = torch.from_numpy(template.image)

        def without_template(i: int) -> Array:
            u = torch.from_numpy(np.array(displacements[i]))
            residual = np.array(volumes[i])
            residual[:-1] -= displaced(image[:-1], u).numpy()
            return inversely_displaced(torch.from_numpy(residual), u).numpy()

        for i, one in enumerate(each(without_template, n)):
            moved[i] = one
        transform = cls(
            template=template,
            boundary=BoundaryRegression.fit(moved, mask, conditions, sites),
            knots=np.zeros((0, *shape), dtype=np.float32),
            channel_factor=np.zeros((0, 0, *mask.shape), dtype=np.float32),
        )

        def without_both(i: int) -> Array:
            u = torch.from_numpy(np.array(displacements[i]))
            residual = transform._unexplained(volumes[i], u, LinearInterpolation(u))
            return inversely_displaced(torch.from_numpy(residual), u).numpy()

        for i, one in enumerate(each(without_both, n)):
            moved[i] = one
        transform = replace(transform, knots=_knots(moved, mask))
        return transform._with_channel_factor(
            volumes, displacements, design(conditions, sites).astype(np.float32)
        )

    def _with_channel_factor(
        self,
        volumes: Volumes,
        displacements: Volumes,
        rows: Array,
    ) -> TemplateTransform:
        """Fits how channels are correlated beyond what the design matrix `rows` explains."""
        mask, count = self.template.mask, self.knots.shape[1]
        inverse = np.linalg.pinv(rows)
        mean = np.zeros((rows.shape[1], count, *mask.shape), dtype=np.float32)

        def scores(i: int) -> Array:
            u = torch.from_numpy(np.array(displacements[i]))
            own = self._scores(volumes[i], u, LinearInterpolation(u))
            return inversely_displaced(torch.from_numpy(own), u).numpy()

        def products(i: int) -> Tensor:
            u = torch.from_numpy(np.array(displacements[i]))
            at = LinearInterpolation(u)
            expected = torch.from_numpy(np.tensordot(rows[i], mean, axes=1).astype(np.float32))
            residual = torch.from_numpy(self._scores(volumes[i], u, at)) - at.apply(expected)
            return at.adjoint((residual[:, None] * residual).flatten(0, 1))[0]

        for weights, one in zip(inverse.T, each(scores, len(rows)), strict=True):
            mean += weights[:, None, None, None, None].astype(np.float32) * one
        total = torch.zeros(count, count, *mask.shape)
        for sums in each(products, len(rows)):
            total += sums.view_as(total)
        return replace(self, channel_factor=_channel_factor(total.numpy(), mask))

    @property
    def channels(self) -> int:
        """Channels of a relative volume: those of an encoded one, and the displacement's three."""
        return len(self.template.inverse_sd) + AXES

    def to_relative(self, volume: Array, displacement: Array) -> Array:
        """Returns the relative volume (C + 3, X, Y, Z): z, and u in voxels.

        Parameters
        ----------
        volume : (C, X, Y, Z), encoded.
        displacement : (3, X, Y, Z), as `GroupTemplate.displacement` finds it.
        """
        u = torch.from_numpy(displacement)
        at, mask = LinearInterpolation(u), self.template.mask
        scores, channel_factor = (
            self._scores(volume, u, at)[::-1],
            _interpolated(self.channel_factor, at),
        )
        z = np.empty_like(scores)
        for k, row in enumerate(channel_factor):
            z[k] = (scores[k] - (row[:k] * z[:k]).sum(axis=0)) / row[k]
        return np.concatenate([z[::-1] * mask, displacement * mask])

    def register(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """Registers encoded volumes (n, C, X, Y, Z); returns relative ones (n, C + 3, X, Y, Z)."""

        def one(i: int) -> Array:
            found = self.template.displacement(volumes[i], conditions[i])
            return self.to_relative(volumes[i], found)

        return np.stack(list(each(one, len(volumes))))

    def relative_of_boundary(self, distances: Array, conditions: Sequence[Condition]) -> Array:
        """Returns what signed distances alone tell of relative volumes.

        Parameters
        ----------
        distances : (n, X, Y, Z), signed distances to the brain's boundary.

        Returns
        -------
        (n, C + 3, X, Y, Z): z of the signed distance, and u as far as the boundary shows it; the
        other channels are 0.
        """
        template = self.template
        count, shape = len(template.inverse_sd), template.mask.shape
        volumes = np.zeros((len(distances), count, *shape), dtype=np.float32)
        volumes[:, -1] = distances
        out = np.zeros((len(distances), self.channels, *shape), dtype=np.float32)
        for one, volume, condition in zip(out, volumes, conditions, strict=True):
            found = self.to_relative(volume, template.displacement(volume, condition, True))
            one[-1 - AXES :] = found[-1 - AXES :]
        return out

    def from_relative(self, relative: Array, distances: Array | None = None) -> Array:
        """Returns the encoded volumes of relative ones; inverse of `relative` inside the mask.

        The maps follow the boundary of the very brain: the signed distance of the result is that
        of its brain, which the z of a sampled volume gives only nearly. Its outline is smoothed by
        `outline_sigma`, and its largest piece remains.

        Parameters
        ----------
        relative : (n, C + 3, X, Y, Z).
        distances : (n, X, Y, Z), signed distances that the results shall have instead.
        """
        count = len(self.template.inverse_sd)
        out = np.empty((len(relative), count, *self.template.mask.shape), dtype=np.float32)
        for i, one in enumerate(relative):
            volume, at = self._without_boundary(one)
            inside = channels.smoothed_brain(channels.brain(volume), self.outline_sigma)
            if distances is not None:
                volume[-1] = distances[i]
            elif inside.any():
                volume[-1] = channels.signed_distance(inside)
            out[i] = self._boundary(at).added_to(volume)
        return out

    def brains(self, relative: Array) -> NDArray[np.bool_]:
        """Returns the brains of relative volumes as they are before smoothing, (n, X, Y, Z)."""
        return np.stack([channels.brain(self._without_boundary(one)[0]) for one in relative])

    def _without_boundary(self, relative: Array) -> tuple[Array, LinearInterpolation]:
        """Returns an encoded volume (C, X, Y, Z) of a relative one, still without what the boundary
        explains, and the interpolation at its places in the template."""
        mask = self.template.mask
        u = torch.from_numpy(np.ascontiguousarray(relative[-AXES:]) * mask)
        at = LinearInterpolation(u)
        z, channel_factor = relative[:-AXES][::-1], _interpolated(self.channel_factor, at)
        scores = np.einsum("kj...,j...->k...", channel_factor, z)[::-1]
        volume = from_scores(scores[None], _interpolated(self.knots, at))[0] * mask
        volume += displaced(torch.from_numpy(self.template.image), u).numpy()
        return volume, at

    def sensitivity(self) -> Array:
        """Returns what a unit of each relative channel changes in an encoded volume,
        (C + 3, X, Y, Z)."""
        middle = len(self.knots) // 2
        slope = self.knots[middle + 1] - self.knots[middle - 1]
        mean = self.template.on_grid()
        moved = np.sqrt(sum(np.stack(np.gradient(one)) ** 2 for one in mean[:-1]))
        return np.concatenate([slope, moved]).astype(np.float32)

    def arrays(self) -> dict[str, Any]:
        """Returns the transform as arrays by name, to be stored."""
        own = {
            "boundary.slopes": self.boundary.slopes,
            "boundary.centre": self.boundary.centre,
            "knots": self.knots,
            "channel_factor": self.channel_factor,
            "outline_sigma": np.array([self.outline_sigma], dtype=np.float32),
        }
        return own | {f"{_TEMPLATE}{name}": a for name, a in self.template.arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> TemplateTransform:
        """Inverse of `arrays`."""
        template = {
            name.removeprefix(_TEMPLATE): array
            for name, array in arrays.items()
            if name.startswith(_TEMPLATE)
        }
        return cls(
            template=GroupTemplate.from_arrays(template),
            boundary=BoundaryRegression(arrays["boundary.slopes"], arrays["boundary.centre"]),
            knots=arrays["knots"],
            channel_factor=arrays["channel_factor"],
            outline_sigma=float(arrays["outline_sigma"][0]),
        )

    def _unexplained(self, volume: Array, u: Tensor, at: LinearInterpolation) -> Array:
        """Returns what the template and the boundary do not explain of an encoded volume."""
        residual = self._boundary(at).removed_from(volume)
        residual -= displaced(torch.from_numpy(self.template.image), u).numpy()
        return residual * self.template.mask

    def _scores(self, volume: Array, u: Tensor, at: LinearInterpolation) -> Array:
        """Returns the normal scores of the unexplained part, (C, X, Y, Z), still correlated."""
        residual = self._unexplained(volume, u, at)
        scores: Array = to_scores(residual[None], _interpolated(self.knots, at))[0]
        return scores * self.template.mask

    def _boundary(self, at: LinearInterpolation) -> BoundaryRegression:
        slopes, centre = self.boundary.slopes, self.boundary.centre
        return BoundaryRegression(_interpolated(slopes, at), _interpolated(centre, at))


def _interpolated(values: Array, at: LinearInterpolation) -> Array:
    """Returns values (..., X, Y, Z) of the template at displaced places."""
    flat = torch.from_numpy(values).flatten(0, -4)
    found: Array = at.apply(flat).view(values.shape).numpy()
    return found


def _knots(values: Array, mask: NDArray[np.bool_]) -> Array:
    """Returns curves (9, C, X, Y, Z) of (n, C, X, Y, Z) values, in the unit of the values."""
    variance = np.zeros(values.shape[1:])
    for one in values:
        variance += one.astype(np.float64) ** 2 / len(values)
    sd = smoothed_sd(variance, mask)
    return fit_knots(values, sd) * sd


def _channel_factor(total: Array, mask: NDArray[np.bool_]) -> Array:
    """Returns L (C, C, X, Y, Z) of sums of products (C, C, X, Y, Z).

    L is the Cholesky factor of the channels' correlations over a neighbourhood, channels taken
    from the last one.
    """
    pooled = smooth(torch.from_numpy(total * mask).flatten(0, 1), _POOLING)
    matrix = pooled.view(total.shape).flip(0, 1).permute(2, 3, 4, 0, 1).double()
    own = torch.diagonal(matrix, dim1=-2, dim2=-1).clamp(min=1e-6).sqrt()
    matrix = _SHRINKAGE * matrix / (own[..., :, None] * own[..., None, :])
    alone = torch.eye(len(total), dtype=torch.float64)
    matrix = torch.where(alone.bool(), alone, matrix)
    matrix = torch.where(torch.from_numpy(mask)[..., None, None], matrix, alone)
    factor: Array = torch.linalg.cholesky(matrix).permute(3, 4, 0, 1, 2).float().numpy()
    return np.ascontiguousarray(factor)
