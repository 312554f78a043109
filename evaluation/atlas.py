"""Brain regions: a label image with names (e.g. the JHU white-matter atlas), or four quarters."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts import volume
from contracts.errors import UserError
from contracts.space import Space


def read_atlas(path: Path, space: Space) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Reads a label image and the names of its labels.

    The names come from a file beside the image with the same stem: a table with columns index
    and name (.tsv) or lines `index name` (.txt). A label without a name is called by its number.

    Parameters
    ----------
    path : NIfTI label image, 0 outside the regions.
    space : the grid that the image must lie on.

    Returns
    -------
    labels : (X, Y, Z).
    names : label -> name, for each label above 0 that occurs.

    Raises
    ------
    UserError : if the image is not on the grid or empty, or the names cannot be read.
    """
    labels = volume.read_on(path, space).astype(np.int32)
    stem = path.name.split(".nii")[0]
    present = [int(k) for k in np.unique(labels) if k > 0]
    if not present:
        raise UserError(f"{path} holds no label above 0")
    names: dict[int, str] = {}
    table, lines = path.with_name(f"{stem}.tsv"), path.with_name(f"{stem}.txt")
    try:
        if table.exists():
            with table.open(newline="") as stream:
                rows = list(csv.DictReader(stream, delimiter="\t"))
            names = {int(row["index"]): row["name"] for row in rows}
        elif lines.exists():
            split = [one.split(maxsplit=1) for one in lines.read_text().splitlines() if one.strip()]
            names = {int(k): name for k, name in split}
    except (KeyError, ValueError) as error:
        raise UserError(
            f"the names beside {path} cannot be read ({error!r}): expected columns index and name "
            "in .tsv, or lines such as `3 genu of corpus callosum` in .txt"
        ) from error
    return labels, {k: names.get(k, f"region {k}") for k in present}


def quarters(brain: NDArray[np.bool_]) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Divides a brain into four regions, for volumes that have no atlas.

    The bounding box is halved from back to front and from bottom to top. Left and right stay
    together, so that each region has two hemispheres to compare.

    Parameters
    ----------
    brain : (X, Y, Z), axes from left to right, back to front and bottom to top.

    Returns
    -------
    labels : (X, Y, Z), 1 to 4 in the brain and 0 outside.
    names : label -> name, e.g. ``anterior superior``.
    """
    inside = np.argwhere(brain)
    doubled_centre_y, doubled_centre_z = (
        inside[:, axis].min() + inside[:, axis].max() + 1 for axis in (1, 2)
    )
    _, y, z = np.indices(brain.shape)
    superior = (2 * z >= doubled_centre_z).astype(np.int32)
    anterior = (2 * y >= doubled_centre_y).astype(np.int32)
    names = {
        1: "posterior inferior",
        2: "posterior superior",
        3: "anterior inferior",
        4: "anterior superior",
    }
    return np.where(brain, 1 + superior + 2 * anterior, 0).astype(np.int32), names
