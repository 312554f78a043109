"""The grid, maps and brain regions on which all volumes of an audit are measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec
from contracts.space import Space
from evaluation.atlas import quarters

# Living tissue has several times this diffusivity and the background of a map is zero, so that a
# voxel above this value belongs to the brain. mm2/s.
BACKGROUND_MD = 0.1e-3

_MARGIN_VOXELS = 2


@dataclass(frozen=True, slots=True)
class MeasurementGrid:
    """The grid, maps and regions that an audit's measurements refer to.

    Parameters
    ----------
    space : the grid of the volumes. Its first axis runs from left to right and is symmetric about
        the midline.
    maps : the maps of the volumes, in order.
    labels : (X, Y, Z), the region of each voxel; 0 outside all regions.
    regions : label -> name.
    possible_brain : (X, Y, Z), the voxels where at least one real brain is, and a margin of two
        voxels around them.
    """

    space: Space
    maps: tuple[MapSpec, ...]
    labels: NDArray[np.int32]
    regions: dict[int, str]
    possible_brain: NDArray[np.bool_]

    @classmethod
    def from_real(
        cls,
        space: Space,
        maps: tuple[MapSpec, ...],
        real: NDArray[np.float32],
        atlas: tuple[NDArray[np.int32], dict[int, str]] | None,
    ) -> MeasurementGrid:
        """Returns the measurement grid for a set of real volumes.

        Parameters
        ----------
        real : (n, maps, X, Y, Z) in physical units.
        atlas : labels (X, Y, Z) and their names; None: the four `quarters` of the brain.
        """
        from scipy.ndimage import binary_dilation

        md = [m.name for m in maps].index("md")
        brain = np.any(real[:, md] > BACKGROUND_MD, axis=0)
        labels, regions = atlas if atlas is not None else quarters(brain)
        return cls(space, maps, labels, regions, binary_dilation(brain, iterations=_MARGIN_VOXELS))

    @property
    def region_names(self) -> tuple[str, ...]:
        """The names of the regions, sorted by label."""
        return tuple(self.regions[k].replace("_", " ") for k in sorted(self.regions))
