"""DWI of known tensors, and a small BIDS tree of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def directions(count: int) -> Floats:
    """Unit vectors (count, 3) spread over a half sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    z = index / count
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def gradients(*shells: tuple[float, int]) -> tuple[Floats, Floats]:
    """One unweighted volume, then (b-value, directions) shells: b-values (V,), vectors (V, 3)."""
    bvals = np.concatenate([[0.0], *(np.full(n, b) for b, n in shells)])
    bvecs = np.concatenate([np.zeros((1, 3)), *(directions(n) for _, n in shells)])
    return bvals, bvecs


def tensors(along: Floats, axial: Floats, radial: Floats) -> Floats:
    """Axially symmetric tensors (..., 3, 3), eigenvalue `axial` along unit vectors `along`."""
    outer = along[..., :, None] * along[..., None, :]
    spread: Floats = radial[..., None, None] * np.eye(3) + (axial - radial)[..., None, None] * outer
    return spread


def fa_md(axial: Floats, radial: Floats) -> tuple[Floats, Floats]:
    """FA and MD of axially symmetric tensors, in closed form (Basser 1996)."""
    return np.abs(axial - radial) / np.sqrt(axial**2 + 2 * radial**2), (axial + 2 * radial) / 3


def signal(tensor: Floats, bvals: Floats, bvecs: Floats, s0: float = 1000.0) -> NDArray[np.float32]:
    """Noise-free signal (..., V) of `tensor` (..., 3, 3) in mm2/s (Stejskal and Tanner 1965)."""
    weight = np.einsum("vi,...ij,vj->...v", bvecs, tensor, bvecs)
    return np.asarray(s0 * np.exp(-bvals * weight), dtype=np.float32)


def field(shape: tuple[int, int, int], seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Random directions (X, Y, Z, 3), axial and radial diffusivities (X, Y, Z) of white matter."""
    random = np.random.default_rng(seed)
    along = random.normal(size=(*shape, 3))
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    radial = random.uniform(0.3e-3, 0.7e-3, shape)
    return along, radial + random.uniform(0.1e-3, 1.0e-3, shape), radial


def write_dwi(
    path: Path,
    values: NDArray[Any],
    affine: Floats,
    bvals: Floats,
    bvecs: Floats,
    sidecar: dict[str, Any] | None = None,
) -> None:
    """A series with `.bval`, `.bvec` and, if given, `.json` beside it."""
    write_map(path, values, affine)
    stem = path.name.removesuffix(".nii.gz")
    np.savetxt(path.with_name(f"{stem}.bval"), bvals[None], fmt="%g")
    np.savetxt(path.with_name(f"{stem}.bvec"), bvecs.T, fmt="%.8f")
    if sidecar is not None:
        path.with_name(f"{stem}.json").write_text(json.dumps(sidecar))


def write_map(path: Path, values: NDArray[Any], affine: Floats) -> None:
    """One map, mask or series as `.nii.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nib.Nifti1Image(values, affine).to_bytes(), compresslevel=1))
