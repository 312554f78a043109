"""The fit of the diffusion tensor: DWI signal to FA, MD and AD."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts import eigenvalues
from contracts.errors import UserError
from contracts.maps import FA, MD

# A volume with at most this b-value counts as unweighted; some scanners write 0.004 or 1.25.
B0_LIMIT = 50.0
METHOD = "weighted linear least squares"
# Number of voxels whose small linear systems are solved together.
_BATCH = 20_000
# Signals at or below zero have no logarithm.
_LEAST_SIGNAL = 1e-4


class TensorMaps(NamedTuple):
    """FA (no unit), MD and AD (mm2/s), each of the shape of the fitted mask and zero outside it.

    AD is the fitted largest eigenvalue. Where noise made another eigenvalue negative, it is the
    nearest value that FA and MD allow; see `contracts.eigenvalues`.
    """

    fa: NDArray[np.float32]
    md: NDArray[np.float32]
    ad: NDArray[np.float32]


def fit(
    dwi: NDArray[np.float32],
    bvals: NDArray[np.float64],
    bvecs: NDArray[np.float64],
    mask: NDArray[np.bool_],
    max_bvalue: float,
) -> TensorMaps:
    """Fit a tensor in every voxel of `mask` and return its FA, MD and AD.

    The fit is by weighted linear least squares (Salvador et al., Hum. Brain Mapp. 2005): the
    logarithm of the signal is regressed on the b-matrix, and each volume is weighted by the
    square of the signal that an unweighted fit predicts. dipy's TensorModel gives the same
    numbers, as a test shows, but takes about fifteen times as long, because it computes a
    pseudo-inverse for each voxel.

    Parameters
    ----------
    dwi : (X, Y, Z, V) signal.
    bvals : (V,) in s/mm2.
    bvecs : (V, 3) unit vectors; those of unweighted volumes are not used.
    mask : (X, Y, Z).
    max_bvalue : volumes above it are left out. The Gaussian signal model holds to about
        1000-1300 s/mm2; higher shells bias MD downward.

    Raises
    ------
    UserError : if fewer than one unweighted and six weighted volumes are left.
    """
    keep = bvals <= max_bvalue
    weighted = int(np.count_nonzero(keep & (bvals > B0_LIMIT)))
    if weighted < 6 or not np.any(bvals <= B0_LIMIT):
        raise UserError(
            f"a tensor needs at least 1 unweighted and 6 weighted volumes with b <= "
            f"{max_bvalue:g} s/mm2; found {int(np.count_nonzero(bvals <= B0_LIMIT))} and "
            f"{weighted}: raise derive.max_bvalue or check the bval file"
        )
    signal = dwi[mask][:, keep].astype(np.float64)
    design = _design(bvals[keep], bvecs[keep])
    tensor = np.concatenate(
        [_solve(signal[i : i + _BATCH], design) for i in range(0, len(signal), _BATCH)]
        or [np.empty((0, 6))]
    )
    mean = tensor[:, :3].mean(axis=1)
    size = (tensor[:, :3] ** 2).sum(axis=1) + 2 * (tensor[:, 3:] ** 2).sum(axis=1)
    # FA follows from the invariants trace(D) and trace(D^2), without eigenvalues (Basser &
    # Pierpaoli, J. Magn. Reson. B 1996, eq. 14).
    anisotropy = np.sqrt(np.maximum(1.5 * (1 - 3 * mean**2 / np.maximum(size, 1e-12)), 0))
    values = np.zeros((3, *mask.shape), dtype=np.float32)
    values[:, mask] = anisotropy, mean / 1000, _largest(tensor) / 1000
    fa, md = FA.clip(values[0]), MD.clip(values[1])
    return TensorMaps(fa=fa, md=md, ad=eigenvalues.nearest(fa, md, values[2]))


def _largest(tensor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest eigenvalue (n,) of tensors (n, 6)."""
    matrices = tensor[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(-1, 3, 3)
    return np.asarray(np.linalg.eigvalsh(matrices)[:, -1], dtype=np.float64)


def _design(bvals: NDArray[np.float64], bvecs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the design matrix (V, 7) of the fit.

    Its product with (Dxx, Dyy, Dzz, Dxy, Dxz, Dyz, log S0) is the logarithm of the signal; D is
    in um2/ms.
    """
    x, y, z = np.where(bvals[:, None] > B0_LIMIT, bvecs, 0.0).T
    b = bvals / 1000
    columns = [x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z]
    return np.stack([*(-b * c for c in columns), np.ones_like(b)], axis=1)


def _solve(signal: NDArray[np.float64], design: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the tensor elements (n, 6) in um2/ms of signals (n, V)."""
    logs = np.log(np.maximum(signal, _LEAST_SIGNAL))
    predicted = (logs @ np.linalg.pinv(design).T) @ design.T
    # Weights are relative to the largest of each voxel, so that no exponential overflows.
    weight = np.exp(2 * (predicted - predicted.max(axis=1, keepdims=True)))
    products = np.einsum("vi,vj->vij", design, design).reshape(len(design), -1)
    normal = (weight @ products).reshape(-1, 7, 7)
    right = (weight * logs) @ design
    # The system of a voxel with one repeated value is singular to rounding without this.
    normal += 1e-9 * np.eye(7)
    solution: NDArray[np.float64] = np.linalg.solve(normal, right[..., None])[:, :6, 0]
    return solution
