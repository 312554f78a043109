"""A DWI series with its gradients, and which of its volumes a tensor is fitted to."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cohort.tensor import B0_LIMIT
from contracts import bids, volume
from contracts.errors import UserError

# A tensor has six elements, so at least six directions are needed.
_FEWEST_WEIGHTED = 6
# The b-values of one shell may differ by this factor.
_SHELL_WIDTH = 1.1


class Dwi(NamedTuple):
    """A series of V volumes.

    Parameters
    ----------
    signal : (X, Y, Z, V).
    affine : (4, 4) voxel index to mm in RAS+.
    bvals : (V,) in s/mm2.
    bvecs : (V, 3) unit vectors; zero or anything for unweighted volumes.
    dropped : number of weighted volumes without a direction, which were left out.
    """

    signal: NDArray[np.float32]
    affine: NDArray[np.float64]
    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]
    dropped: int

    @property
    def zooms(self) -> NDArray[np.float64]:
        """Voxel edges in mm, (3,)."""
        from nibabel.affines import voxel_sizes

        return np.asarray(voxel_sizes(self.affine), dtype=np.float64)

    @property
    def b0(self) -> NDArray[np.float32]:
        """Mean of the unweighted volumes, (X, Y, Z)."""
        return np.asarray(self.signal[..., self.bvals <= B0_LIMIT].mean(axis=-1), dtype=np.float32)


def read(path: Path) -> Dwi:
    """Read a series with the `.bval` and `.bvec` files beside it.

    Weighted volumes without a direction, which are trace images of the scanner, are left out.

    Raises
    ------
    UserError : if a file is missing or cut short, the numbers of volumes differ, or the series
        has no volume without weighting. Whether it determines a tensor, `fit_limit` tells.
    """
    bvals = read_bvals(path)
    bvecs = _numbers(bids.sibling(path, ".bvec"))
    if bvecs.ndim == 2 and bvecs.shape[0] == 3 and bvecs.shape[1] == len(bvals):
        bvecs = bvecs.T
    if bvecs.shape != (len(bvals), 3):
        raise UserError(
            f"{bids.sibling(path, '.bvec').name}: expected 3 x {len(bvals)} numbers, as many as "
            f"b-values, found {' x '.join(map(str, bvecs.shape))}"
        )
    signal, affine = volume.read(path)
    if signal.ndim != 4 or signal.shape[3] != len(bvals):
        raise UserError(
            f"{path.name}: expected {len(bvals)} volumes, as many as b-values, found shape "
            f"{' x '.join(map(str, signal.shape))}"
        )
    length = np.linalg.norm(np.nan_to_num(bvecs), axis=1)
    keep = (bvals <= B0_LIMIT) | (length > 0.5)
    if not np.any(bvals <= B0_LIMIT):
        raise UserError(f"{path.name}: no unweighted volume (b <= {B0_LIMIT:g} s/mm2)")
    unit = np.nan_to_num(bvecs) / np.maximum(length, 1e-6)[:, None]
    if not keep.all():
        signal = signal[..., keep]
    return Dwi(signal, affine, bvals[keep], unit[keep], int(np.count_nonzero(~keep)))


def read_bvals(path: Path) -> NDArray[np.float64]:
    """Read the b-values (V,) of a series; a UserError if there is no such file."""
    return np.atleast_1d(_numbers(bids.sibling(path, ".bval"))).ravel()


def fit_limit(dwi: Dwi, max_bvalue: float) -> float:
    """Return the highest b-value to fit to: `max_bvalue`, or the lowest shell that allows a fit.

    Raises
    ------
    UserError : if the directions cannot determine a tensor.
    """
    weighted = np.sort(dwi.bvals[dwi.bvals > B0_LIMIT])
    if len(weighted) < _FEWEST_WEIGHTED:
        raise UserError(
            f"a tensor needs {_FEWEST_WEIGHTED} weighted volumes, found {len(weighted)}"
        )
    higher = weighted[weighted > max_bvalue] * _SHELL_WIDTH
    for limit in (max_bvalue, *map(float, higher)):
        if _determined(dwi, limit):
            return limit
    raise UserError("the gradient directions do not determine a tensor: 6 different ones needed")


def _determined(dwi: Dwi, limit: float) -> bool:
    keep = (dwi.bvals > B0_LIMIT) & (dwi.bvals <= limit)
    x, y, z = dwi.bvecs[keep].T
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    return bool(np.linalg.matrix_rank(design, tol=0.05) == 6) if len(design) else False


def _numbers(path: Path) -> NDArray[np.float64]:
    if not path.exists():
        raise UserError(f"no {path.name} beside the series: convert it again or copy the file")
    try:
        text = path.read_text()
        found = np.loadtxt(text.splitlines(), dtype=np.float64, ndmin=1) if text.strip() else None
    except ValueError as error:
        raise UserError(f"{path.name} holds something else than numbers: {error}") from None
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error}") from None
    if found is None:
        raise UserError(f"{path.name} is empty")
    return found
