"""Maps and brain mask of one scan in its own space, which BIDS calls its native space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from cohort import dwi, masking, tensor
from cohort.derivatives import valid_maps
from cohort.importer import DwiScan, MapScan, Scan
from cohort.tensor import B0_LIMIT
from cohort.units import axial, to_physical
from contracts import bids, volume
from contracts.errors import UserError

# The NIfTI code of a scanner's own coordinates.
_XFORM_SCANNER = 1
# Fields of a source's sidecar that hold for the maps made from it.
_CARRIED = ("Simulated", "FitMethod", "MaxBValue", "Site")


class ScanMaps(NamedTuple):
    """Maps of one scan in its own space.

    Parameters
    ----------
    maps : values (X, Y, Z) in physical units by name: fa, md and, where it is asked for, ad.
    mask : (X, Y, Z) brain mask.
    affine : (4, 4) voxel index to mm in RAS+.
    sidecar : how the maps were made, for the JSON files beside them.
    notes : what was done differently for this scan.
    """

    maps: dict[str, NDArray[np.float32]]
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    sidecar: dict[str, Any]
    notes: tuple[str, ...]


def load(scan: Scan, max_bvalue: float, with_ad: bool = False) -> ScanMaps:
    """Read ready maps, or fit the tensor to a DWI series.

    Parameters
    ----------
    max_bvalue : highest b-value of the fit, in s/mm2. Where no fit is possible below it, the
        lowest shells that allow one are used and a note says so.
    with_ad : whether AD is wanted beside FA and MD.

    Raises
    ------
    UserError : if a file is missing, cut short or inconsistent.
    """
    if isinstance(scan, MapScan):
        return _from_maps(scan, with_ad)
    return _from_dwi(scan, max_bvalue, with_ad)


def write(root: Path, scan: str, found: ScanMaps) -> None:
    """Write the maps and the mask of a scan in its own space."""
    folder = bids.derivatives_folder(root, scan)
    folder.mkdir(parents=True, exist_ok=True)
    for spec, values in valid_maps(found.maps).items():
        path = folder / bids.map_name(scan, None, spec)
        _write_image(path, values, found.affine)
        meta = {"Parameter": spec.label, "Units": spec.unit or "1", **found.sidecar}
        bids.sidecar(path).write_text(json.dumps(meta, indent=2) + "\n")
    _write_image(folder / bids.mask_name(scan, None), found.mask.astype(np.uint8), found.affine)


def _from_maps(scan: MapScan, with_ad: bool) -> ScanMaps:
    fa, affine = volume.read(scan.fa)
    md = _read_like(scan.md, fa.shape, affine)
    if fa.ndim != 3:
        raise UserError(f"{scan.fa.name}: expected a 3D map, found shape {fa.shape}")
    if scan.mask is None:
        mask = masking.solid(np.isfinite(fa) & (fa > 0) & np.isfinite(md) & (md > 0))
        method = "voxels with FA and MD above 0, largest component, holes filled"
    else:
        mask = _read_like(scan.mask, fa.shape, affine) > 0
        method = f"given: {scan.mask.name}"
    found = to_physical(fa, md, mask)
    maps = {"fa": found.fa, "md": found.md}
    sources = [scan.fa.name, scan.md.name]
    if with_ad:
        if scan.ad is None:
            raise UserError(
                f"no AD map beside {scan.fa.name}: expected a file of that name with AD for FA "
                "(or L1); add it, or set derive.maps to [fa, md]"
            )
        maps["ad"] = axial(_read_like(scan.ad, fa.shape, affine), found, mask)
        sources.append(scan.ad.name)
    sidecar = _carried(scan.fa) | {
        "Sources": sources,
        "SourceUnits": {"FA": found.fa_unit, "MD": found.md_unit},
        "Mask": method,
    }
    notes = (f"{scan.md.name} in {found.md_unit}",) if found.md_unit != "mm^2/s" else ()
    return ScanMaps(maps, mask & found.known, affine, sidecar, notes)


def _from_dwi(scan: DwiScan, max_bvalue: float, with_ad: bool) -> ScanMaps:
    series = dwi.read(scan.series)
    limit = dwi.fit_limit(series, max_bvalue)
    mask, method = _mask(scan, series)
    found = tensor.fit(series.signal, series.bvals, series.bvecs, mask, limit)
    used = series.bvals[series.bvals <= limit]
    notes = []
    if limit > max_bvalue:
        notes.append(
            f"no fit possible with b <= {max_bvalue:g}; fitted to b <= {used.max():g} s/mm2: "
            "MD is biased downward"
        )
    if series.dropped:
        notes.append(f"{series.dropped} weighted volumes without direction left out")
    sidecar = _carried(scan.series) | {
        "Sources": [scan.series.name],
        "FitMethod": tensor.METHOD,
        "MaxBValue": limit,
        "BValues": sorted({float(b) for b in np.round(used[used > B0_LIMIT], -1)}),
        "VolumesUsed": {
            "Unweighted": int(np.count_nonzero(used <= B0_LIMIT)),
            "Weighted": int(np.count_nonzero(used > B0_LIMIT)),
        },
        "Mask": method,
        "MotionAndDistortionCorrection": "none here; as in the source",
    }
    maps = {"fa": found.fa, "md": found.md} | ({"ad": found.ad} if with_ad else {})
    return ScanMaps(maps, mask, series.affine, sidecar, tuple(notes))


def _mask(scan: DwiScan, series: dwi.Dwi) -> tuple[NDArray[np.bool_], str]:
    if scan.mask is not None:
        given = _read_like(scan.mask, series.signal.shape[:3], series.affine) > 0
        return given, f"given: {scan.mask.name}"
    if _sidecar(scan.series).get("SkullStripped") is True:
        return masking.solid(series.b0 > 0), "source is skull-stripped: voxels with signal"
    return masking.brain_mask(series.b0, series.zooms), masking.METHOD


def _read_like(
    path: Path, shape: tuple[int, ...], affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    values, own = volume.read(path)
    if values.shape != shape or not np.allclose(own, affine, atol=1e-3):
        raise UserError(
            f"{path.name}: expected the grid of its scan, shape {shape}, found {values.shape} or "
            "another affine"
        )
    return values


def _sidecar(image: Path) -> dict[str, Any]:
    path = bids.sidecar(image)
    try:
        content = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise UserError(f"{path.name} is no valid JSON: mend or remove it") from None
    return content if isinstance(content, dict) else {}


def _carried(image: Path) -> dict[str, Any]:
    content = _sidecar(image)
    return {key: content[key] for key in _CARRIED if key in content}


def _write_image(path: Path, values: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, _XFORM_SCANNER)
    image.set_qform(affine, _XFORM_SCANNER)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
