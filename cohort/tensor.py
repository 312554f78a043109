"""The diffusion tensor fit: DWI signal to FA and MD."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import UserError
from contracts.maps import FA, MD

# Some scanners write b = 0.004 or 1.25 for an unweighted volume.
B0_LIMIT = 50.0
METHOD = "weighted linear least squares (dipy TensorModel)"


class TensorMaps(NamedTuple):
    """FA (no unit) and MD (mm2/s), each of the shape of the fitted mask, zero outside it."""

    fa: NDArray[np.float32]
    md: NDArray[np.float32]


def fit(
    dwi: NDArray[np.float32],
    bvals: NDArray[np.float64],
    bvecs: NDArray[np.float64],
    mask: NDArray[np.bool_],
    max_bvalue: float,
) -> TensorMaps:
    """Fit a tensor in every voxel of `mask` and return its FA and MD.

    Parameters
    ----------
    dwi : (X, Y, Z, V) signal.
    bvals : (V,) in s/mm2.
    bvecs : (V, 3) unit vectors; rows of unweighted volumes may be anything.
    mask : (X, Y, Z).
    max_bvalue : volumes above it are left out. The Gaussian signal model holds to about
        1000-1300 s/mm2; higher shells bias MD downward.

    Raises
    ------
    UserError : if fewer than one unweighted and six weighted volumes are left.
    """
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    keep = bvals <= max_bvalue
    weighted = int(np.count_nonzero(keep & (bvals > B0_LIMIT)))
    if weighted < 6 or not np.any(bvals <= B0_LIMIT):
        raise UserError(
            f"a tensor needs at least 1 unweighted and 6 weighted volumes with b <= "
            f"{max_bvalue:g} s/mm2; found {int(np.count_nonzero(bvals <= B0_LIMIT))} and "
            f"{weighted}: raise derive.max_bvalue or check the bval file"
        )
    table = gradient_table(bvals[keep], bvecs=bvecs[keep], b0_threshold=B0_LIMIT)
    fitted = TensorModel(table, fit_method="WLS").fit(
        np.ascontiguousarray(dwi[..., keep]), mask=mask
    )
    fa = np.where(mask, np.nan_to_num(np.asarray(fitted.fa, dtype=np.float32)), np.float32(0))
    md = np.where(mask, np.nan_to_num(np.asarray(fitted.md, dtype=np.float32)), np.float32(0))
    return TensorMaps(fa=FA.clip(fa), md=MD.clip(md))
