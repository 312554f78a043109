"""The prior: what is known of a volume before any network is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from cohort import channels
from cohort.group_template import AXES, GroupTemplate
from cohort.interpolation import displaced
from cohort.regression import Array, design, regress
from cohort.template_estimator import Volumes, smoothed_sd
from cohort.threads import each
from contracts.condition import Condition
from models.prior.covariance import Covariance, LazyRows
from models.prior.mean_shift import on_grid
from models.prior.stationary import StationaryField

# Deviations are clipped at plus and minus this: single voxels of bad scans lie far outside.
CLIP = 4.0


@dataclass(frozen=True, slots=True)
class Prior:
    """A group template, the shapes of brains, and what is expected of a brain of a given shape.

    A **shape** (1 + 3, X, Y, Z) is the signed distance to the brain's boundary and the displacement
    u to the template, as `GroupTemplate` has it. An encoded volume (`cohort.channels`) of C
    channels, the last of which is the signed distance, is written

        v(x) = template(x + u(x)) + mean(x; condition) + scale(x) r(x),

    and u itself is mean(x; condition) + scale(x) r(x), with the same regression on age and sex. Of
    the residual r, the channels of the shape (distance and u) are drawn from a Gaussian field.
    Those of the maps are what the network generates; a Gaussian field is where it starts.

    Parameters
    ----------
    template : of the base group.
    coefficients : (4 + S, C + 3, X, Y, Z), regression on `cohort.regression.design`: of the
        channels of v, and of u in voxels.
    scale : (C + 3, X, Y, Z), standard deviation at each place of what the mean leaves; positive.
    map_covariance : of the first C - 1 channels of r.
    shape_field : of the last four.
    site_gain : one factor per channel of encoded volumes. A base generator has ones; an adapter
        learns those of another site, since scanners differ first of all by a factor on FA and MD.
    sites : that the regression tells apart; empty: none.
    outline_sigma : how much the outline of a drawn brain is smoothed, see `models.prior.outline`.
    mean_shift : (C + 3, ...) on the coarse grid of `models.prior.mean_shift`, added to r; None:
        zero, as a base generator has it. An adapter learns where another group has another mean.
    """

    template: GroupTemplate
    coefficients: Array
    scale: Array
    map_covariance: Covariance
    shape_field: StationaryField
    site_gain: Array
    sites: tuple[str, ...] = ()
    outline_sigma: float = 0.0
    mean_shift: Array | None = None

    @classmethod
    def fit(
        cls,
        template: GroupTemplate,
        volumes: Volumes,
        displacements: Volumes,
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
    ) -> Prior:
        """Fits the prior to registered training subjects.

        The subjects are read several times, one at a time, so that they may be a memory map of any
        length.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z), encoded.
        displacements : (n, 3, X, Y, Z), of the same subjects, in voxels.
        """
        n, mask = len(volumes), template.mask
        # Half precision is what files hold; a generator is the same before and after it was saved.
        template = replace(template, image=_half(template.image))

        def relative(i: int) -> Array:
            return _relative(template, volumes[i], displacements[i])

        coefficients = _half(regress(LazyRows(relative, n), conditions, sites) * mask)
        rows = design(conditions, sites).astype(np.float32)

        def deviation(i: int) -> Array:
            found: Array = relative(i) - np.tensordot(rows[i], coefficients, axes=1) * mask
            return found

        variance = np.zeros(coefficients.shape[1:])
        for one in each(deviation, n):
            variance += np.square(one, dtype=np.float64) / n
        scale = smoothed_sd(variance, mask)
        maps = len(scale) - AXES - 1

        def residuals(part: slice) -> LazyRows:
            return LazyRows(lambda i: _clipped(deviation(i)[part] / scale[part]), n)

        # Correction for the degrees of freedom that the regression takes.
        correction = np.float32(np.sqrt(n / max(n - len(coefficients), 1)))
        return cls(
            template=template,
            coefficients=coefficients,
            scale=scale * correction,
            map_covariance=Covariance.fit(residuals(slice(0, maps)), mask, scale[:maps]),
            shape_field=StationaryField.fit(residuals(slice(maps, None)), mask),
            site_gain=np.ones(maps + 1, dtype=np.float32),
            sites=sites,
        )

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels that a brain may reach, (X, Y, Z)."""
        return self.template.mask

    @property
    def map_count(self) -> int:
        """C - 1: the channels that the network generates."""
        return len(self.site_gain) - 1

    def mean(self, conditions: Sequence[Condition]) -> Array:
        """Returns what is added to the template, and the expected displacement,
        (n, C + 3, X, Y, Z)."""
        mean = np.tensordot(design(conditions, self.sites), self.coefficients, axes=1)
        if self.mean_shift is not None:
            mean += self.scale * on_grid(self.mean_shift, self.mask)
        return mean.astype(np.float32)

    def draw_shapes(self, noise: Array, conditions: Sequence[Condition]) -> Array:
        """Returns random shapes (n, 4, X, Y, Z) of white noise (n, 4, 2 X, 2 Y, 2 Z).

        The signed distance is that of a brain with a smooth outline and in one piece, see
        `cohort.channels.smoothed_brain`.
        """
        shapes = self.unsmoothed_shapes(noise, conditions)
        for shape in shapes:
            inside = channels.smoothed_brain(shape[0] > 0, self.outline_sigma)
            if inside.any():
                shape[0] = channels.signed_distance(inside)
        return shapes

    def unsmoothed_shapes(self, noise: Array, conditions: Sequence[Condition]) -> Array:
        """Returns `draw_shapes` with outlines as the Gaussian field makes them."""
        shapes = self.mean(conditions)[:, self.map_count :]
        shapes += self.shape_field.draw(noise) * self.scale[self.map_count :]
        shapes *= self.mask
        for shape in shapes:
            shape[0] += _displaced(self.template.image[-1:], shape[1:])[0]
        return shapes

    def shapes_of_masks(self, masks: NDArray[np.bool_], conditions: Sequence[Condition]) -> Array:
        """Returns shapes (n, 4, X, Y, Z) with given brains (n, X, Y, Z).

        The displacement is what registration finds from the boundary alone: it is that of the
        template inside the brain.
        """
        out = np.empty((len(masks), 1 + AXES, *self.mask.shape), dtype=np.float32)
        volume = np.zeros((len(self.site_gain), *self.mask.shape), dtype=np.float32)
        for shape, mask, condition in zip(out, masks, conditions, strict=True):
            volume[-1] = shape[0] = channels.signed_distance(mask)
            shape[1:] = self.template.displacement(volume, condition, boundary_only=True)
            shape[1:] *= self.mask
        return out

    def expected(self, shapes: Array, conditions: Sequence[Condition]) -> Array:
        """Returns the encoded volumes (n, C, X, Y, Z) expected of brains of given shapes, as the
        base group's sites have them: without `site_gain`.

        Parameters
        ----------
        shapes : (n, 4, X, Y, Z).
        """
        out = self.mean(conditions)[:, : len(self.site_gain)]
        for one, shape in zip(out, shapes, strict=True):
            one[:-1] += _displaced(self.template.image[:-1], shape[1:])
            one[-1] = shape[0]
        return out

    def residual_and_expected(
        self, volume: Array, displacement: Array, condition: Condition
    ) -> tuple[Array, Array]:
        """Returns what a network is trained on: r of the maps (C - 1, X, Y, Z), clipped at `CLIP`
        and zero outside the mask, and `expected` (C, X, Y, Z).

        Parameters
        ----------
        volume : (C, X, Y, Z), encoded.
        displacement : (3, X, Y, Z), in voxels.
        """
        own = volume / self.site_gain[:, None, None, None]
        shape = np.concatenate([own[-1:], displacement * self.mask])
        expected = self.expected(shape[None], [condition])[0]
        r: Array = _clipped((own - expected)[:-1] / self.scale[: self.map_count]) * self.mask
        return r, expected

    def volumes(self, r: Array, expected: Array) -> Array:
        """Returns encoded volumes (n, C, X, Y, Z); inverse of `residual_and_expected`.

        Parameters
        ----------
        r : (n, C - 1, X, Y, Z).
        expected : (n, C, X, Y, Z).
        """
        out = expected.copy()
        out[:, :-1] += r * (self.scale[: self.map_count] * self.mask)
        return out * self.site_gain[:, None, None, None]

    def residual(self, volume: Array, displacement: Array, condition: Condition) -> Array:
        """Returns r of all channels, (C + 3, X, Y, Z), zero outside the mask; arguments as in
        `residual_and_expected`."""
        own = volume / self.site_gain[:, None, None, None]
        relative = _relative(self.template, own, displacement)
        r: Array = (relative - self.mean([condition])[0] * self.mask) / self.scale
        return _clipped(r)

    def register(self, volume: Array, condition: Condition) -> Array:
        """Returns the displacement (3, X, Y, Z) of an encoded volume (C, X, Y, Z), in voxels."""
        return self.template.displacement(volume / self.site_gain[:, None, None, None], condition)

    def with_fitted_gain(self, volumes: Volumes, conditions: Sequence[Condition]) -> Prior:
        """Returns this prior with the gain that fits another group best, by least squares per map.

        Each volume is compared with what is expected of a brain of its own shape: compared with
        brains of other shapes, the gain would be found too small. The signed distance, which is its
        own expectation, keeps a gain of 1: another scanner does not change the size of heads.

        Parameters
        ----------
        volumes : (n, C, X, Y, Z), encoded.
        """
        fitted = self
        # Twice: shapes are found better where values are already brought to the base's.
        for _ in range(2):
            row = partial(fitted._gain_products, volumes, conditions)
            products = np.sum(list(each(row, len(volumes))), axis=0)
            change = products[0] / products[1]
            fitted = fitted.with_gain((fitted.site_gain * change).astype(np.float32))
        return fitted

    def _gain_products(
        self, volumes: Volumes, conditions: Sequence[Condition], i: int
    ) -> NDArray[np.float64]:
        """Returns the sums over the i-th volume of itself times what is expected, and of the
        latter's square, (2, C)."""
        volume, condition = volumes[i], conditions[i]
        _, expected = self.residual_and_expected(
            volume, self.register(volume, condition), condition
        )
        expected = expected * self.site_gain[:, None, None, None] * self.mask
        both = np.stack([volume * expected, expected**2]).astype(np.float64)
        sums: NDArray[np.float64] = both.sum(axis=(2, 3, 4))
        return sums

    def with_gain(self, gain: Array) -> Prior:
        """Returns this prior with another gain."""
        return replace(self, site_gain=gain)

    def with_mean_shift(self, coarse: Array | None) -> Prior:
        """Returns this prior with another shift of the mean."""
        return replace(self, mean_shift=coarse)


def _relative(template: GroupTemplate, volume: Array, displacement: Array) -> Array:
    """Returns an encoded volume less the displaced template, and the displacement,
    (C + 3, X, Y, Z); zero outside the mask."""
    difference = volume - _displaced(template.image, displacement)
    found: Array = np.concatenate([difference, displacement]) * template.mask
    return found


def _displaced(image: Array, displacement: Array) -> Array:
    u = torch.from_numpy(np.array(displacement))  # a memory map may be read only
    found: Array = displaced(torch.from_numpy(np.ascontiguousarray(image)), u).numpy()
    return found


def _half(array: Array) -> Array:
    """Returns an array rounded to half precision."""
    return array.astype(np.float16).astype(np.float32)


def _clipped(r: Array) -> Array:
    clipped: Array = np.clip(r, -CLIP, CLIP)
    return clipped
