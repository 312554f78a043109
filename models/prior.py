"""What is known of a volume before any network speaks: mean, spread and shape of each voxel's
values, and a covariance that ties the voxels together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from models import representation
from models.field import Covariance, Waves
from models.gaussian import Array, design, regress
from models.rim import Rim

# A voxel's spread below this share of the largest is the noise of a nearly empty voxel.
_SCALE_FLOOR = 0.05
_SMOOTH_VOXELS = 1.0
_STEP = 0.5
_NORMAL = np.arange(-2, 2 + _STEP, _STEP)
_LEAST_RISE = 0.02
FARTHEST = 3.0
# Of r in a voxel: about 1 on average.
_LEAST_VARIANCE = 0.05
# Waves of displacement along each axis: shifts, turns, scalings, shears and their likes.
_WAVES = 3
# Of all subjects' values in the voxels that are sorted at a time.
_SLAB_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Prior:
    """A closed-form model of whole volumes: the start that a network's training adds to.

    A volume v, less what follows its outline (`models.rim`), is written
    mean(condition) + scale * g(r / sd), where g is a monotone curve per
    voxel that gives normal values the voxel's own distribution (a Gaussian copula: Liu et al.
    2009 call it nonparanormal). In a voxel that is fluid in some and tissue in others that is far
    from a bell. r is modelled as a Gaussian field, see `models.field`; how it departs from that is
    what the network learns. A stationary field and some modes together vary more in some voxels
    than in others: sd takes it out, so that values there have no other distribution for it.

    Parameters
    ----------
    coefficients : (4 + S, C, X, Y, Z) regression on `models.gaussian.design`, of the channels that
        `models.representation.encode` gives: maps, then the level set.
    mask : (X, Y, Z), voxels that a brain may reach.
    scale : (C, X, Y, Z), local standard deviation of what the mean leaves over; positive.
    knots : (9, C, X, Y, Z), values of g at -2, -1.5 ... 2; linear between and beyond.
    covariance : of r.
    sd : (C, X, Y, Z), standard deviation of r that follows from it; 1 outside the mask.
    gain : (C,), factor on the mean. One for a base generator; an adapter learns another
        site's, since scanners differ first of all by a factor on FA and on MD.
    centre : (4 + S,), mean regressors of the training subjects.
    sites : that the regression tells apart; empty: none.
    rim : how maps follow the level set; None: not at all, or volumes have none.
    """

    coefficients: Array
    mask: NDArray[np.bool_]
    scale: Array
    knots: Array
    covariance: Covariance
    sd: Array
    gain: Array
    centre: Array
    sites: tuple[str, ...] = ()
    rim: Rim | None = None

    @classmethod
    def fit(
        cls,
        volumes: Array,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
        rim: Rim | None = None,
    ) -> Prior:
        """Fit to encoded (n, C, X, Y, Z) volumes inside an (X, Y, Z) mask.

        The volumes are read several times, a volume or a slab of voxels at a time: they may be a
        memory map of any length.
        """
        n, channels = volumes.shape[:2]
        freed = _Rows(lambda i: volumes[i] if rim is None else rim.freed(volumes[i]), n)
        coefficients = regress(freed, conditions, sites) * mask
        rows = design(conditions, sites).astype(np.float32)

        def deviation(i: int) -> Array:
            left: Array = (freed[i] - np.tensordot(rows[i], coefficients, axes=1)) * mask
            return left

        variance, mean = np.zeros(volumes.shape[1:]), np.zeros(volumes.shape[1:])
        for i in range(n):
            variance += np.square(deviation(i), dtype=np.float64) / n
            mean += freed[i] / n
        scale = _local_spread(variance, mask)
        knots = _curves(volumes, rows, coefficients, np.where(mask, scale, np.float32(np.inf)), rim)
        normal = _Rows(lambda i: _to_normal(deviation(i) / scale, knots) * mask, n)
        covariance = Covariance.fit(normal, mask, scale, displaced(mean, scale, mask))
        # A regression fits its own subjects better than new ones.
        wider = np.float32(np.sqrt(n / max(n - len(coefficients), 1)))
        return cls(
            coefficients=coefficients,
            mask=mask,
            scale=scale * wider,
            knots=knots,
            covariance=covariance,
            sd=local_sd(covariance, mask),
            gain=np.ones(channels, dtype=np.float32),
            centre=rows.mean(axis=0),
            sites=sites,
            rim=rim,
        )

    @property
    def channels(self) -> int:
        """C, the maps and the level set."""
        return int(self.scale.shape[0])

    @property
    def start(self) -> Prior:
        """The model of what a denoiser sees: itself; of latents, see `models.latent`, another."""
        return self

    def mean(self, conditions: Sequence[Condition]) -> Array:
        """Expected encoded volumes, (n, C, X, Y, Z)."""
        base = np.tensordot(design(conditions, self.sites), self.coefficients, axes=1)
        return (base * self.gain[:, None, None, None]).astype(np.float32)

    def average(self) -> Array:
        """Expected encoded volume of a training subject of whom nothing is known, (C, X, Y, Z)."""
        base = np.tensordot(self.centre, self.coefficients, axes=1)
        return (base * self.gain[:, None, None, None]).astype(np.float32)

    def residual(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """r of encoded volumes, cut at -3 and 3 sd; up to that the inverse of `volume`."""
        freed = volumes if self.rim is None else self.rim.freed(volumes)
        deviation = (freed - self.mean(conditions)) / self.scale * self.mask
        r: Array = _to_normal(deviation, self.knots) * self.sd * self.mask
        return r

    def volume(
        self, residual: Array, conditions: Sequence[Condition], levels: Array | None = None
    ) -> Array:
        """Encoded volumes of r; inverse of `residual` inside the mask.

        Where maps follow the outline, the level set of the result is that of its brain: what r
        holds is one only nearly, unless r is that of a volume.

        Parameters
        ----------
        levels : (n, X, Y, Z), level sets to be had instead of those of r.
        """
        deviation = _from_normal(residual / self.sd, self.knots) * self.scale * self.mask
        out = (self.mean(conditions) + deviation).astype(np.float32)
        if levels is not None:
            out[:, -1] = levels
        elif self.rim is not None:
            for one in out:
                inside = representation.brain(one)
                if inside.any():
                    one[-1] = representation.level_set(inside)
        return out if self.rim is None else self.rim.followed(out)

    def with_gain(self, volumes: Array, conditions: Sequence[Condition]) -> Prior:
        """This prior with the gain that fits another cohort best, by least squares per map.

        The level set keeps 1: another scanner does not change the size of heads.
        """
        if self.rim is not None:
            volumes = self.rim.freed(volumes)
        base = replace(self, gain=np.ones_like(self.gain)).mean(conditions)
        axes = (0, 2, 3, 4)
        gain = (volumes * base * self.mask).sum(axis=axes) / (base**2 * self.mask).sum(axis=axes)
        gain[-1] = 1
        return self.scaled(gain.astype(np.float32))

    def scaled(self, gain: Array) -> Prior:
        """This prior with another gain."""
        return replace(self, gain=gain)


class _Rows(Sequence[Array]):
    """Rows that are computed when they are read."""

    def __init__(self, row: Callable[[int], Array], count: int) -> None:
        self._row, self._count = row, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        return self._row(range(self._count)[i])


def _curves(
    volumes: Array, rows: Array, coefficients: Array, scale: Array, rim: Rim | None
) -> Array:
    """Knots (9, C, X, Y, Z) of what `rows @ coefficients` leaves of `volumes`, over `scale`.

    Quantiles need all subjects of a voxel: voxels are taken in slabs.
    """
    flat, expected, spread = (
        a.reshape(len(a), len(scale), -1) for a in (volumes, coefficients, scale[None])
    )
    out = np.empty((len(_NORMAL), *flat.shape[1:]), dtype=np.float32)
    width = max(_SLAB_BYTES // flat[:, :, :1].nbytes, 1)
    for first in range(0, flat.shape[2], width):
        slab = slice(first, first + width)
        values = flat[:, :, slab] if rim is None else rim.at(slab).freed(flat[:, :, slab])
        left: Array = values - np.tensordot(rows, expected[:, :, slab], axes=1)
        out[:, :, slab] = _rising(left / spread[:, :, slab])
    return out.reshape(len(_NORMAL), *scale.shape)


def _rising(values: Array) -> Array:
    """Quantiles of (n, voxels) values at the knots of a normal distribution."""
    from scipy.special import ndtr

    quantiles = np.quantile(values, ndtr(_NORMAL), axis=0)
    # A voxel that hardly varies keeps a curve that rises, so that it can be inverted; from its
    # median on, so that what does not vary is at 0.
    rises = np.maximum(np.diff(quantiles, axis=0), _LEAST_RISE)
    middle = len(_NORMAL) // 2
    above = np.cumsum(rises[middle:], axis=0)
    below = np.cumsum(rises[:middle][::-1], axis=0)[::-1]
    steps = np.concatenate([-below, np.zeros_like(above[:1]), above])
    curves: Array = (quantiles[middle] + steps).astype(np.float32)
    return curves


def local_sd(covariance: Covariance, mask: NDArray[np.bool_]) -> Array:
    """`Prior.sd` of a covariance."""
    sd = np.sqrt(np.maximum(Waves(covariance).variance().numpy(), _LEAST_VARIANCE))
    return np.where(mask, sd, np.float32(1))


def displaced(mean: NDArray[np.float64], scale: Array, mask: NDArray[np.bool_]) -> Array:
    """What small smooth displacements do to the mean volume, (D, C, X, Y, Z), in units of r.

    A brain that is a little wider or turned moves all of its borders together, FA, MD and outline
    alike: no stationary field does.
    """
    slopes = [np.stack(parts) for parts in zip(*(np.gradient(m) for m in mean), strict=True)]
    along = [
        np.cos(np.pi * np.arange(_WAVES)[:, None] * (np.arange(n) + 0.5) / n) for n in mask.shape
    ]
    out = [
        slope / scale * mask * along[0][i][:, None, None] * along[1][j][:, None] * along[2][k]
        for slope in slopes
        for i, j, k in product(range(_WAVES), repeat=3)
        if i + j + k < _WAVES
    ]
    return np.stack(out).astype(np.float32)


def _to_normal(values: Array, knots: Array) -> Array:
    out = np.full_like(values, _NORMAL[0])
    for k in range(len(_NORMAL) - 1):
        share = (values - knots[k]) / (knots[k + 1] - knots[k])
        out += np.float32(_STEP) * np.clip(share, *_limits(k))
    return np.clip(out, -FARTHEST, FARTHEST)


def _from_normal(normal: Array, knots: Array) -> Array:
    inside = np.clip(normal, -FARTHEST, FARTHEST)
    out = np.repeat(knots[:1], len(normal), axis=0)
    for k in range(len(_NORMAL) - 1):
        share = (inside - np.float32(_NORMAL[k])) / np.float32(_STEP)
        out += (knots[k + 1] - knots[k]) * np.clip(share, *_limits(k))
    return out


def _limits(k: int) -> tuple[float, float]:
    """The first and the last piece of a curve go on beyond their knot."""
    return (-np.inf if k == 0 else 0.0, np.inf if k == len(_NORMAL) - 2 else 1.0)


def _local_spread(variance: NDArray[np.float64], mask: NDArray[np.bool_]) -> Array:
    from scipy.ndimage import gaussian_filter

    weight = np.maximum(gaussian_filter(mask.astype(np.float64), _SMOOTH_VOXELS), 1e-6)
    out = np.empty_like(variance)
    for i, image in enumerate(variance):
        spread = np.sqrt(gaussian_filter(image * mask, _SMOOTH_VOXELS) / weight)
        floor = max(_SCALE_FLOOR * float(spread[mask].max()), 1e-6)
        out[i] = np.where(mask, np.maximum(spread, floor), floor)
    spreads: Array = out.astype(np.float32)
    return spreads
