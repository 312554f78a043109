"""A label image of regions with their names, the JHU white-matter atlas for one."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts import volume
from contracts.errors import UserError
from contracts.space import Space


def read(path: Path, space: Space) -> tuple[NDArray[np.int32], dict[int, str]]:
    """Labels (X, Y, Z) and their names: a table with columns index and name (.tsv), or lines
    `index name` (.txt), beside the image; numbers where there is none.

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
