"""How well subjects are registered to the group template: a row per subject, and a picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cohort.group_template import GroupTemplate
from cohort.regression import Array
from contracts.maps import MapSpec

# Windows of FA and MD in pictures, and of their standard deviations, as shares of the map's scale.
_WINDOW = {"fa": (0.8, 0.2), "md": (0.5, 0.15)}


@dataclass(frozen=True, slots=True)
class RegistrationQuality:
    """How one subject lies relative to the template.

    Parameters
    ----------
    mean_mm, max_mm : length of its displacement inside both brains.
    min_jacobian : least determinant of the Jacobian of x + u(x); above 0 nothing folds.
    fa_rms_before, fa_rms_after : root mean square of FA less the template's, without displacement
        and with it.
    """

    subject: str
    mean_mm: float
    max_mm: float
    min_jacobian: float
    fa_rms_before: float
    fa_rms_after: float

    @classmethod
    def of(
        cls, subject: str, template: GroupTemplate, encoded: Array, displacement: Array, zoom: float
    ) -> RegistrationQuality:
        """Measures one subject.

        Parameters
        ----------
        encoded : (C, X, Y, Z), its channels.
        displacement : (3, X, Y, Z), in voxels.
        zoom : edge of a voxel in mm.
        """
        import torch

        from cohort.interpolation import displaced

        mask = template.mask & (encoded[-1] > 0)
        length = zoom * np.sqrt((displacement**2).sum(axis=0))[mask]
        slopes = np.stack([np.stack(np.gradient(u)) for u in displacement])
        jacobian = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3))
        fa = torch.from_numpy(template.image[:1])
        moved = displaced(fa, torch.from_numpy(displacement)).numpy()[0]

        def rms(expected: Array) -> float:
            return float(np.sqrt(np.square(encoded[0] - expected)[mask].mean()))

        return cls(
            subject=subject,
            mean_mm=float(length.mean()),
            max_mm=float(length.max()),
            min_jacobian=float(jacobian[mask].min()),
            fa_rms_before=rms(template.on_grid()[0]),
            fa_rms_after=rms(moved),
        )

    def row(self) -> dict[str, Any]:
        """Returns the values by name, numbers with four digits."""
        return {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(self).items()}


class RunningMoments:
    """Mean and standard deviation of volumes that are added one after the other."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: NDArray[np.float64] = np.zeros((2, 1, 1, 1, 1))

    def add(self, volume: Array) -> None:
        """Adds a volume (maps, X, Y, Z)."""
        self._count += 1
        self._sums = self._sums + np.stack([volume, np.square(volume, dtype=np.float64)])

    @property
    def mean(self) -> NDArray[np.float64]:
        """(maps, X, Y, Z)."""
        mean: NDArray[np.float64] = self._sums[0] / self._count
        return mean

    @property
    def sd(self) -> NDArray[np.float64]:
        """(maps, X, Y, Z)."""
        square = self._sums[1] / self._count
        sd: NDArray[np.float64] = np.sqrt(np.maximum(square - self.mean**2, 0))
        return sd


def plot(
    template: GroupTemplate,
    before: RunningMoments,
    after: RunningMoments,
    maps: tuple[MapSpec, ...],
    path: Path,
) -> None:
    """Draws axial slices of FA and MD: the template, the mean of the subjects as they are and
    registered, and the standard deviation of both. Good registration lowers the latter.

    Parameters
    ----------
    before, after : of maps in physical units, as they are and registered.
    """
    from matplotlib.figure import Figure

    titles = ["template", "mean, as they are", "mean, registered"]
    titles += ["sd, as they are", "sd, registered"]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(2, len(titles))
    middle = template.mask.shape[2] // 2
    inside = template.on_grid()[-1] > 0
    for row, (k, spec) in zip(axes, enumerate(maps[:2]), strict=True):
        image = np.where(inside, spec.from_network(template.on_grid()[k]), 0)
        shown = (image, before.mean[k], after.mean[k], before.sd[k], after.sd[k])
        for i, (axis, values) in enumerate(zip(row, shown, strict=True)):
            top = _WINDOW[spec.name][i > 2] * spec.scale
            axis.imshow(values[:, :, middle].T, origin="lower", cmap="gray", vmin=0, vmax=top)
            axis.set_title(f"{spec.label} {titles[i]}\n0 to {top:.2g} {spec.unit}", fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=120, metadata={"Software": None})
