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
from models.curves import from_normal, local_spread, rising, to_normal
from models.directions import directions
from models.field import Covariance, Waves
from models.frame import AXES, Frame
from models.gaussian import Array, design, regress

# Of r in a voxel: about 1 on average.
_LEAST_VARIANCE = 0.05
# Waves of displacement along each axis: shifts, turns, scalings, shears and their likes.
_WAVES = 3


@dataclass(frozen=True, slots=True)
class Prior:
    """A closed-form model of whole volumes: the start that a network's training adds to.

    An encoded volume as a template sees it (`models.frame`), maps, level set and displacement
    alike, is written mean(condition) + scale * g(r / sd), where g is a monotone curve per
    voxel that gives normal values the voxel's own distribution (a Gaussian copula: Liu et al.
    2009 call it nonparanormal). r is modelled as a Gaussian field, see `models.field`; how it
    departs from that is what the network learns. A stationary field and some modes together vary
    more in some voxels than in others: sd takes it out, so that values there have no other
    distribution for it.

    Parameters
    ----------
    coefficients : (4 + S, C, X, Y, Z) regression on `models.gaussian.design` of C channels.
    mask : (X, Y, Z), voxels that a brain may reach.
    scale : (C, X, Y, Z), local standard deviation of what the mean leaves over; positive.
    knots : (9, C, X, Y, Z), curves g, see `models.curves`.
    covariance : of r.
    sd : (C, X, Y, Z), standard deviation of r that follows from it; 1 outside the mask.
    gain : one per channel of encoded volumes, factor on these. One for a base generator; an
        adapter learns another site's, since scanners differ first of all by a factor on FA and on
        MD.
    centre : (4 + S,), mean regressors of the training subjects.
    sites : that the regression tells apart; empty: none.
    frame : between encoded volumes and the C channels; None: they are the same.
    stretch : how much farther displacements are drawn than registration finds them, see
        `models.dispersion`; in `scale` already.
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
    frame: Frame | None = None
    stretch: float = 1.0

    @classmethod
    def fit(
        cls,
        volumes: Array,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
        frame: Frame | None = None,
    ) -> Prior:
        """Fit to (n, C, X, Y, Z) volumes inside an (X, Y, Z) mask.

        The volumes are read several times, a volume or a slab of voxels at a time: they may be a
        memory map of any length.

        Parameters
        ----------
        frame : whose standard volumes these are; None: they are encoded ones.
        """
        n, channels = volumes.shape[:2]
        coefficients = regress(volumes, conditions, sites) * mask
        rows = design(conditions, sites).astype(np.float32)

        def deviation(i: int) -> Array:
            left: Array = (volumes[i] - np.tensordot(rows[i], coefficients, axes=1)) * mask
            return left

        variance, mean = np.zeros(volumes.shape[1:]), np.zeros(volumes.shape[1:])
        for i in range(n):
            variance += np.square(deviation(i), dtype=np.float64) / n
            mean += volumes[i] / n
        scale = local_spread(variance, mask)
        over = np.where(mask, scale, np.float32(np.inf))
        knots = rising(volumes, over, (rows, coefficients))
        normal = _Rows(lambda i: to_normal(deviation(i) / scale, knots) * mask, n)
        if frame is None:
            weight, ways = scale, displaced(mean, scale, mask)
        else:
            weight, ways = scale.copy(), directions(frame) / scale
            weight[:-AXES] *= frame.effect()[:-AXES]
        covariance = Covariance.fit(normal, mask, weight, ways)
        # A regression fits its own subjects better than new ones.
        wider = np.float32(np.sqrt(n / max(n - len(coefficients), 1)))
        return cls(
            coefficients=coefficients,
            mask=mask,
            scale=scale * wider,
            knots=knots,
            covariance=covariance,
            sd=local_sd(covariance, mask),
            gain=np.ones(channels if frame is None else len(frame.precision), dtype=np.float32),
            centre=rows.mean(axis=0),
            sites=sites,
            frame=frame,
        )

    @property
    def channels(self) -> int:
        """C: maps, level set and displacement."""
        return int(self.scale.shape[0])

    @property
    def start(self) -> Prior:
        """The model of what a denoiser sees: itself; of latents, see `models.latent`, another."""
        return self

    def mean(self, conditions: Sequence[Condition]) -> Array:
        """Expected channels, (n, C, X, Y, Z)."""
        base = np.tensordot(design(conditions, self.sites), self.coefficients, axes=1)
        return base.astype(np.float32)

    def average(self) -> Array:
        """Those of a training subject of whom nothing is known, (C, X, Y, Z)."""
        base: Array = np.tensordot(self.centre, self.coefficients, axes=1).astype(np.float32)
        return base

    def importance(self) -> Array:
        """What a standard deviation of each channel changes in encoded volumes, (C, X, Y, Z)."""
        return self.scale if self.frame is None else self.scale * self.frame.effect()

    def residual(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """r of encoded volumes, cut at -3 and 3 sd; up to that the inverse of `volume`."""
        return self.normal(self.standard(volumes, conditions), conditions)

    def standard(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """The C channels of encoded volumes."""
        own: Array = volumes / self.gain[:, None, None, None]
        return own if self.frame is None else self.frame.standard(own, conditions)

    def normal(
        self, standard: Array, conditions: Sequence[Condition], stretched: bool = False
    ) -> Array:
        """r of C channels.

        Parameters
        ----------
        stretched : whether displacements are to go as far as drawn ones do. A network that learnt
            from those that registration finds would draw them in again.
        """
        deviation = (standard - self.mean(conditions)) / self.scale * self.mask
        if stretched and self.frame is not None:
            deviation[:, -AXES:] *= np.float32(self.stretch)
        r: Array = to_normal(deviation, self.knots) * self.sd * self.mask
        return r

    def outlined(self, levels: Array, conditions: Sequence[Condition]) -> Array:
        """The last channels of r, as far as level sets (n, X, Y, Z) tell them: that of the level
        set, and of a frame the displacement."""
        if self.frame is None:
            standard = np.zeros((len(levels), *self.scale.shape), dtype=np.float32)
            standard[:, -1] = levels
            return self.normal(standard, conditions)[:, -1:]
        known = self.normal(self.frame.outlined(levels, conditions), conditions)
        return known[:, len(self.gain) - 1 :]

    def volume(
        self, residual: Array, conditions: Sequence[Condition], levels: Array | None = None
    ) -> Array:
        """Encoded volumes of r; inverse of `residual` inside the mask.

        Parameters
        ----------
        levels : (n, X, Y, Z), level sets to be had instead of those of r.
        """
        deviation = from_normal(residual / self.sd, self.knots) * self.scale * self.mask
        out = (self.mean(conditions) + deviation).astype(np.float32)
        if self.frame is not None:
            out = self.frame.volumes(out, levels)
        elif levels is not None:
            out[:, -1] = levels
        return out * self.gain[:, None, None, None]

    def with_gain(self, volumes: Array, conditions: Sequence[Condition]) -> Prior:
        """This prior with the gain that fits another cohort best, by least squares per map.

        Volumes are compared with what is expected of brains of their own shape: of others, it
        would be found too small. The level set keeps 1: another scanner does not change the size
        of heads.
        """
        fitted = self
        # Twice: shapes are found better where values are already brought to the base's.
        for _ in range(1 if self.frame is None else 2):
            products = np.zeros((2, len(self.gain)))
            for volume, condition in zip(volumes, conditions, strict=True):
                one = fitted.expected(volume, condition) * self.mask
                both = np.stack([volume * one, one**2]).astype(np.float64)
                products += both.sum(axis=(2, 3, 4))
            change = products[0] / products[1]
            change[-1] = 1
            fitted = fitted.scaled((fitted.gain * change).astype(np.float32))
        return fitted

    def expected(self, volume: Array, condition: Condition) -> Array:
        """The encoded volume (C, X, Y, Z) that is expected of a brain of the shape of this one."""
        mean = self.mean([condition])
        if self.frame is not None:
            found = self.standard(volume[None], [condition])
            mean[:, -AXES:] = found[:, -AXES:]
            mean = self.frame.volumes(mean, volume[None, -1])
        own: Array = mean[0] * self.gain[:, None, None, None]
        return own

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
