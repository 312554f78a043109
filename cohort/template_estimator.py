"""Estimates a group template, effects of age and sex, and displacements, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.elastic_registration import register
from cohort.interpolation import LinearInterpolation, displaced, smooth, upsampled
from cohort.regression import Array
from cohort.threads import each

# Steps of the template's grid per voxel: sub-voxel displacements let the subjects resolve half a
# voxel together.
FINER = 2
# Width of the smoothing of template updates, in voxels of the template.
_BLUR = 0.6
# Least sum of interpolation weights that an update is divided by, for the template and the effects.
_LEAST_WEIGHT, _LEAST_COARSE = 1.0, 0.3
# Width of the smoothing of variances, in voxels, and the least standard deviation as a share of the
# largest: below it there is the noise of a nearly empty voxel.
_VARIANCE_SIGMA, _LEAST_SD_SHARE = 1.0, 0.05

# Volumes in memory, or rows that are read or computed one at a time.
Volumes = Sequence[Array] | Array


class TemplateEstimator:
    """A template image, the effects of regressors on it, and the sd of the residuals.

    Parameters
    ----------
    image : (C, FX, FY, FZ), on the fine grid.
    effects : (4, C, X, Y, Z), what a unit of each regressor adds.
    rows : (n, 4), regressors of the subjects, less their mean.
    mask : (X, Y, Z), outside of which differences do not count.
    inverse_sd : (C, X, Y, Z), one over the standard deviation that registration leaves; empty
        until `update_inverse_sd`.
    """

    def __init__(
        self,
        image: Tensor,
        effects: Tensor,
        rows: Tensor,
        mask: NDArray[np.bool_],
        inverse_sd: Tensor | None = None,
    ) -> None:
        self.image, self.effects, self._rows = image, effects, rows
        self._mask = torch.from_numpy(mask)
        self.inverse_sd = torch.zeros(0) if inverse_sd is None else inverse_sd

    def estimate_displacement(
        self, i: int, volume: Array, displacement: Array, steps: int, sigma: float
    ) -> Array:
        """Returns the displacement (3, X, Y, Z) of the i-th subject; see
        `cohort.elastic_registration.register`."""
        found: Array = register(
            torch.from_numpy(np.array(volume)),
            self._expected(i),
            upsampled(self.inverse_sd, FINER),
            torch.from_numpy(np.array(displacement)),
            steps,
            sigma,
        ).numpy()
        return found

    def update_inverse_sd(self, volumes: Volumes, displacements: Volumes) -> None:
        """Computes the inverse_sd from what the displaced template leaves of the volumes."""

        def squares(i: int) -> NDArray[np.float64]:
            moved = displaced(self._expected(i), torch.from_numpy(np.array(displacements[i])))
            residual = torch.from_numpy(np.array(volumes[i])) - moved
            squared: NDArray[np.float64] = np.square(residual.numpy(), dtype=np.float64)
            return squared

        variance = np.zeros(volumes[0].shape)
        for one in each(squares, len(volumes)):
            variance += one / len(volumes)
        mask = self._mask.numpy()
        self.inverse_sd = torch.from_numpy(
            np.where(mask, 1 / smoothed_sd(variance, mask), 0)
        ).float()

    def update_template(self, volumes: Volumes, displacements: Volumes) -> None:
        """Takes one step towards the template and the effects of least squares."""
        sums, weight = torch.zeros_like(self.image), torch.zeros_like(self.image[:1])
        change = torch.zeros_like(self.effects)
        inverse = torch.linalg.pinv(torch.cat([torch.ones(len(self._rows), 1), self._rows], dim=1))

        def shown(i: int) -> tuple[Tensor, Tensor, Tensor]:
            at = LinearInterpolation(torch.from_numpy(np.array(displacements[i])))
            residual = torch.from_numpy(np.array(volumes[i])) - at.apply(self._expected(i))
            values, count = at.adjoint(residual)
            return *at.adjoint(residual, FINER), values / count.clamp(min=_LEAST_COARSE)

        for i, (values, count, coarse) in enumerate(each(shown, len(volumes))):
            sums += values
            weight += count
            change += inverse[1:, i].view(-1, 1, 1, 1, 1) * coarse
        blurred = smooth(weight, _BLUR).clamp(min=_LEAST_WEIGHT)
        self.image = self.image + smooth(sums, _BLUR) / blurred
        self.effects = self.effects + change * self._mask

    def store(self, path: Path, number: int) -> None:
        """Writes template and effects, and the number of the round that they come from."""
        from safetensors.torch import save_file

        partial = path.with_suffix(".partial")
        save_file(
            {
                "image": self.image.contiguous(),
                "effects": self.effects.contiguous(),
                "round": torch.tensor([number]),
            },
            partial,
        )
        partial.replace(path)

    def restore(self, path: Path) -> int:
        """Reads what `store` wrote; returns the number of the round."""
        from safetensors.torch import load_file

        stored = load_file(path)
        self.image, self.effects = stored["image"], stored["effects"]
        return int(stored["round"])

    def _expected(self, i: int) -> Tensor:
        """Returns the template at the i-th subject's age and sex, on the fine grid."""
        added = torch.tensordot(self._rows[i], self.effects, dims=1)
        return self.image + upsampled(added, FINER)


def smoothed_sd(variance: NDArray[np.float64], mask: NDArray[np.bool_]) -> Array:
    """Returns the roots of variances averaged over a neighbourhood inside a mask.

    Parameters
    ----------
    variance : (C, X, Y, Z).

    Returns
    -------
    (C, X, Y, Z), at least a share of the largest of each channel, also outside the mask.
    """
    from scipy.ndimage import gaussian_filter

    weight = np.maximum(gaussian_filter(mask.astype(np.float64), _VARIANCE_SIGMA), 1e-6)
    out = np.empty_like(variance)
    for i, image in enumerate(variance):
        sd = np.sqrt(gaussian_filter(image * mask, _VARIANCE_SIGMA) / weight)
        least = max(_LEAST_SD_SHARE * float(sd[mask].max()), 1e-6)
        out[i] = np.where(mask, np.maximum(sd, least), least)
    deviations: Array = out.astype(np.float32)
    return deviations
