"""The grid that every volume of a cohort lives on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import UserError

# Field of view of the working space, in mm, RAS+: it holds the MNI152 brain with a margin and is
# a multiple of 8 voxels at 4 mm and of 16 at 2 mm, so that UNets can halve it.
_CORNER_MM = (-80.0, -114.0, -74.0)
_EXTENT_MM = (160.0, 192.0, 160.0)

Affine = tuple[
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
    tuple[float, float, float, float],
]


@dataclass(frozen=True, slots=True)
class Space:
    """A named voxel grid.

    Parameters
    ----------
    name : BIDS space label with its resolution, e.g. ``MNI152NLin2009aSym_res-4``.
    shape : (X, Y, Z) voxels.
    affine : voxel index -> mm in RAS+, 4 x 4, row by row.
    """

    name: str
    shape: tuple[int, int, int]
    affine: Affine

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The affine as a (4, 4) array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def zooms(self) -> tuple[float, float, float]:
        """Voxel edge lengths in mm."""
        x, y, z = np.sqrt((self.matrix[:3, :3] ** 2).sum(axis=0))
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml."""
        return float(abs(np.linalg.det(self.matrix[:3, :3])) / 1000.0)

    def centres(self) -> NDArray[np.float64]:
        """Voxel centres in mm, shape (X, Y, Z, 3)."""
        index = np.stack(np.meshgrid(*[np.arange(n) for n in self.shape], indexing="ij"), axis=-1)
        centres: NDArray[np.float64] = index @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        return centres

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` gives the same space."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "affine": [list(row) for row in self.affine],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Space:
        """Inverse of `to_json`."""
        return cls.from_affine(data["name"], data["shape"], data["affine"])

    @classmethod
    def from_affine(cls, name: str, shape: Any, affine: Any) -> Space:
        """Build a space from any sequences of numbers."""
        rows = np.asarray(affine, dtype=np.float64)
        if rows.shape != (4, 4):
            raise UserError(f"space {name}: expected a 4x4 affine, found shape {rows.shape}")
        x, y, z = (int(n) for n in shape)
        frozen: Affine = tuple(tuple(float(v) for v in row) for row in rows)  # type: ignore[assignment]
        return cls(name=name, shape=(x, y, z), affine=frozen)


def mni_space(zoom_mm: float) -> Space:
    """The working space: nilearn's MNI152 anatomy (2009a, symmetric) on an isotropic grid.

    40 x 48 x 40 voxels at 4 mm, 80 x 96 x 80 at 2 mm, both over the same 160 x 192 x 160 mm.

    Raises
    ------
    UserError : if the field of view is not a whole multiple of 8 voxels at this size.
    """
    counts = [extent / zoom_mm for extent in _EXTENT_MM]
    if any(abs(n - round(n)) > 1e-6 or round(n) % 8 for n in counts):
        raise UserError(
            f"resolution {zoom_mm:g} mm does not divide the field of view into multiples of "
            "8 voxels; use 4, 2 or 1"
        )
    affine = np.diag([zoom_mm, zoom_mm, zoom_mm, 1.0])
    affine[:3, 3] = np.array(_CORNER_MM) + zoom_mm / 2
    return Space.from_affine(
        f"MNI152NLin2009aSym_res-{zoom_mm:g}", [round(n) for n in counts], affine
    )
