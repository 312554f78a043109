"""The prior: what is known of a volume before any network is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.group_template import AXES
from cohort.regression import Array, design, regress
from cohort.template_estimator import smoothed_sd
from cohort.threads import each
from contracts.condition import Condition
from models.prior.covariance import Covariance
from models.prior.directions import directions
from models.prior.mean_shift import on_grid
from models.prior.quantiles import fit_knots, from_scores, to_scores
from models.prior.template_transform import TemplateTransform

# Cosine waves of displacement along each axis: shifts, turns, scalings and shears.
_WAVES = 3


@dataclass(frozen=True, slots=True)
class Prior:
    """A closed-form Gaussian model of whole volumes, which training adds to.

    A relative volume (`models.prior.template_transform`: normal scores of the maps and of the
    distance to the boundary, and a displacement) is written

        mean(condition) + scale * q(r),

    with q the quantile transform of each voxel (a Gaussian copula, which Liu et al. 2009 call
    nonparanormal). The residual r is modelled as a Gaussian field (`models.prior.spectrum`). How r
    departs from that is what the network learns.

    Parameters
    ----------
    coefficients : (4 + S, C, X, Y, Z), regression on `cohort.regression.design` of C channels.
    mask : (X, Y, Z), voxels that a brain may reach.
    scale : (C, X, Y, Z), local standard deviation of what the mean leaves; positive.
    knots : (9, C, X, Y, Z), curves q, see `models.prior.quantiles`.
    covariance : of r.
    site_gain : one factor per channel of encoded volumes. A base generator has ones; an adapter
        learns those of another site, since scanners differ first of all by a factor on FA and MD.
    sites : that the regression tells apart; empty: none.
    transform : between encoded and relative volumes; None: they are the same.
    mean_shift : (C, ...) on the coarse grid of `models.prior.mean_shift`, added to r; None: zero,
        as a base generator has it. An adapter learns where another group has another mean.
    """

    coefficients: Array
    mask: NDArray[np.bool_]
    scale: Array
    knots: Array
    covariance: Covariance
    site_gain: Array
    sites: tuple[str, ...] = ()
    transform: TemplateTransform | None = None
    mean_shift: Array | None = None

    @classmethod
    def fit(
        cls,
        volumes: Array,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
        transform: TemplateTransform | None = None,
    ) -> Prior:
        """Fits the prior to training subjects.

        The volumes are read several times, one volume or one block of voxels at a time, so that
        they may be a memory map of any length.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z), relative; encoded ones where there is no transform.
        mask : (X, Y, Z), voxels that a brain may reach.
        transform : that made the relative volumes.
        """
        n, channels = volumes.shape[:2]
        coefficients = regress(volumes, conditions, sites) * mask
        rows = design(conditions, sites).astype(np.float32)

        def deviation(i: int) -> Array:
            residual: Array = (volumes[i] - np.tensordot(rows[i], coefficients, axes=1)) * mask
            return residual

        variance, mean = np.zeros(volumes.shape[1:]), np.zeros(volumes.shape[1:])
        for i in range(n):
            variance += np.square(deviation(i), dtype=np.float64) / n
            mean += volumes[i] / n
        scale = smoothed_sd(variance, mask)
        safe_scale = np.where(mask, scale, np.float32(np.inf))
        knots = fit_knots(volumes, safe_scale, (rows, coefficients))
        residuals = _LazyVolumes(lambda i: to_scores(deviation(i) / scale, knots) * mask, n)
        if transform is None:
            weight, given = scale, _displacement_directions(mean, scale, mask)
        else:
            weight, given = scale.copy(), directions(transform) / scale
            weight[:-AXES] *= transform.sensitivity()[:-AXES]
        # Correction for the degrees of freedom that the regression takes.
        correction = np.float32(np.sqrt(n / max(n - len(coefficients), 1)))
        maps = channels if transform is None else channels - AXES
        return cls(
            coefficients=coefficients,
            mask=mask,
            scale=scale * correction,
            knots=knots,
            covariance=Covariance.fit(residuals, mask, weight, given),
            site_gain=np.ones(maps, dtype=np.float32),
            sites=sites,
            transform=transform,
        )

    @property
    def channels(self) -> int:
        """C: the channels of encoded volumes, and those of the displacement."""
        return int(self.scale.shape[0])

    def mean(self, conditions: Sequence[Condition]) -> Array:
        """Returns the expected relative volumes, (n, C, X, Y, Z)."""
        base = np.tensordot(design(conditions, self.sites), self.coefficients, axes=1)
        return base.astype(np.float32)

    def importance(self) -> Array:
        """Returns what one unit of r changes in encoded volumes, (C, X, Y, Z)."""
        return self.scale if self.transform is None else self.scale * self.transform.sensitivity()

    def residual(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """Returns r of encoded volumes, clipped at -3 and 3; up to that the inverse of `volume`."""
        return self.residual_of_relative(self.to_relative(volumes, conditions), conditions)

    def to_relative(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """Returns the relative volumes of encoded ones, which are registered for it."""
        own: Array = volumes / self.site_gain[:, None, None, None]
        return own if self.transform is None else self.transform.register(own, conditions)

    def residual_of_relative(self, relative: Array, conditions: Sequence[Condition]) -> Array:
        """Returns r of relative volumes (n, C, X, Y, Z)."""
        deviation = (relative - self.mean(conditions)) / self.scale * self.mask
        r: Array = to_scores(deviation, self.knots) * self.mask
        return r if self.mean_shift is None else r - on_grid(self.mean_shift, self.mask)

    def relative_of_boundary(self, distances: Array, conditions: Sequence[Condition]) -> Array:
        """Returns the last channels of r as far as signed distances tell them.

        Parameters
        ----------
        distances : (n, X, Y, Z), signed distances to the brain's boundary.

        Returns
        -------
        (n, K, X, Y, Z): the channel of the signed distance, and with a transform those of the
        displacement.
        """
        if self.transform is None:
            volumes = np.zeros((len(distances), *self.scale.shape), dtype=np.float32)
            volumes[:, -1] = distances
            return self.residual_of_relative(volumes, conditions)[:, -1:]
        known = self.residual_of_relative(
            self.transform.relative_of_boundary(distances, conditions), conditions
        )
        return known[:, len(self.site_gain) - 1 :]

    def volume(
        self, residual: Array, conditions: Sequence[Condition], distances: Array | None = None
    ) -> Array:
        """Returns the encoded volumes of r; inverse of `residual` inside the mask.

        Parameters
        ----------
        distances : (n, X, Y, Z), signed distances that they shall have instead of those of r.
        """
        out = self.relative(residual, conditions)
        if self.transform is not None:
            out = self.transform.from_relative(out, distances)
        elif distances is not None:
            out[:, -1] = distances
        return out * self.site_gain[:, None, None, None]

    def relative(self, residual: Array, conditions: Sequence[Condition]) -> Array:
        """Returns the relative volumes of r; inverse of `residual_of_relative`."""
        if self.mean_shift is not None:
            residual = residual + on_grid(self.mean_shift, self.mask)
        deviation = from_scores(residual, self.knots) * self.scale * self.mask
        out: Array = (self.mean(conditions) + deviation).astype(np.float32)
        return out

    def with_fitted_gain(self, volumes: Array, conditions: Sequence[Condition]) -> Prior:
        """Returns this prior with the gain that fits another group best, by least squares per map.

        Each volume is compared with what is expected of a brain of its own shape: compared with
        brains of other shapes, the gain would be found too small. The signed distance keeps a gain
        of 1, since another scanner does not change the size of heads.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z), encoded.
        """
        fitted = self
        # Twice: shapes are found better where values are already brought to the base's.
        for _ in range(1 if self.transform is None else 2):
            row = partial(fitted._gain_products, volumes, conditions)
            products = np.sum(list(each(row, len(volumes))), axis=0)
            change = products[0] / products[1]
            change[-1] = 1
            fitted = fitted.with_gain((fitted.site_gain * change).astype(np.float32))
        return fitted

    def _gain_products(
        self, volumes: Array, conditions: Sequence[Condition], i: int
    ) -> NDArray[np.float64]:
        """Returns the sums over the i-th volume of itself times what is expected, and of the
        latter's square, (2, C)."""
        expected = self.expected_for_shape(volumes[i], conditions[i]) * self.mask
        both = np.stack([volumes[i] * expected, expected**2]).astype(np.float64)
        sums: NDArray[np.float64] = both.sum(axis=(2, 3, 4))
        return sums

    def expected_for_shape(self, volume: Array, condition: Condition) -> Array:
        """Returns the encoded volume (C, X, Y, Z) expected of a brain of the shape of this one."""
        mean = self.mean([condition])
        if self.transform is not None:
            found = self.to_relative(volume[None], [condition])
            mean[:, -AXES:] = found[:, -AXES:]
            mean = self.transform.from_relative(mean, volume[None, -1])
        own: Array = mean[0] * self.site_gain[:, None, None, None]
        return own

    def with_gain(self, gain: Array) -> Prior:
        """Returns this prior with another gain."""
        return replace(self, site_gain=gain)

    def with_mean_shift(self, coarse: Array | None) -> Prior:
        """Returns this prior with another shift of the mean."""
        return replace(self, mean_shift=coarse)


class _LazyVolumes(Sequence[Array]):
    """Rows that are computed when they are read."""

    def __init__(self, row: Callable[[int], Array], count: int) -> None:
        self._row, self._count = row, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: Any) -> Any:
        return self._row(range(self._count)[i])


def _displacement_directions(
    mean: NDArray[np.float64], scale: Array, mask: NDArray[np.bool_]
) -> Array:
    """Returns what small smooth displacements do to the mean volume, (D, C, X, Y, Z), in r.

    A brain that is a little wider or turned moves all of its borders together, those of FA, of MD
    and of the brain alike; no stationary field does. This is for priors without template.
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
