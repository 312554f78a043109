"""Reading and writing of map volumes as NIfTI files."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import UserError
from contracts.space import Space

# NIfTI code of coordinates aligned to a template; both sform and qform carry it.
_XFORM_MNI = 4
_COMMENT = "comment"


def encode(values: NDArray[Any], space: Space, recipe: dict[str, Any] | None = None) -> bytes:
    """A volume as the bytes of a `.nii.gz` file; same input, same bytes.

    Parameters
    ----------
    values : (X, Y, Z) or (X, Y, Z, n) on the grid of `space`; floats are stored as float32,
        integers (masks, labels) as they are.
    recipe : how the volume came about; kept as a JSON comment in the header.

    Raises
    ------
    ValueError : if the shape is not that of `space`.
    """
    import nibabel as nib  # takes half a second, which `--help` need not wait for

    if values.shape[:3] != space.shape:
        raise ValueError(f"expected a volume of shape {space.shape}, found {values.shape}")
    data = values.astype(np.float32) if values.dtype.kind == "f" else values
    if data.dtype == bool:
        data = data.astype(np.uint8)
    image = nib.Nifti1Image(data, space.matrix)
    image.set_sform(space.matrix, _XFORM_MNI)
    image.set_qform(space.matrix, _XFORM_MNI)
    image.header.set_xyzt_units("mm")
    if recipe is not None:
        text = json.dumps(recipe, sort_keys=True).encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, text))
    packed = io.BytesIO()
    # mtime=0: the time of writing must not change the bytes.
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6) as stream:
        stream.write(image.to_bytes())
    return packed.getvalue()


def write(
    path: Path, values: NDArray[Any], space: Space, recipe: dict[str, Any] | None = None
) -> None:
    """Write a volume; a stop in the middle leaves no half file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(encode(values, space, recipe))
    partial.replace(path)


def read(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A volume and its affine.

    Raises
    ------
    UserError : if the file is missing, is no NIfTI, or is cut short.
    """
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    if not path.exists():
        raise UserError(f"no such volume: {path}")
    try:
        image = nib.load(path)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except (ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as NIfTI ({error}); it may be cut short: copy or make it again"
        ) from error
    affine: NDArray[np.float64] = np.asarray(image.affine, dtype=np.float64)
    return data, affine


def read_on(path: Path, space: Space) -> NDArray[np.float32]:
    """A volume that must lie on the grid of `space`.

    Raises
    ------
    UserError : as `read`, and if shape or affine differ from those of `space`.
    """
    data, affine = read(path)
    if data.shape[:3] != space.shape or not np.allclose(affine, space.matrix, atol=1e-3):
        raise UserError(
            f"{path} is not in {space.name}: expected shape {space.shape} at "
            f"{space.zooms} mm, found {data.shape}; run `python -m cohort.derive` to resample it"
        )
    return data


def read_recipe(path: Path) -> dict[str, Any] | None:
    """The recipe that `write` stored in the header, or None."""
    import nibabel as nib

    image = nib.load(path)
    for extension in image.header.extensions:
        if extension.get_code() == 6:
            content = extension.get_content()
            text = content if isinstance(content, str) else content.decode()
            recipe: dict[str, Any] = json.loads(text.rstrip("\x00"))
            return recipe
    return None
