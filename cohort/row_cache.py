"""Arrays that are too large for memory: written row by row, read as a memory map."""

from __future__ import annotations

import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort.threads import each
from contracts.console import progress
from contracts.errors import UserError

Array = NDArray[np.float32]


def rows(path: Path, shape: tuple[int, ...], row: Callable[[int], Array], what: str) -> Array:
    """Returns a read-only memory map of the array whose i-th row is `row(i)`.

    Rows are appended to a file that gets its name when it is whole. A stop keeps the rows that
    were written, and a second process that wants the same file waits for the first.

    Parameters
    ----------
    path : the ``.npy`` file. Its name must tell everything that the rows depend on.
    shape : of the whole array.
    row : returns the i-th row; called from several threads.
    what : label of the progress bar.

    Raises
    ------
    UserError : if the disk is too small.
    """
    from filelock import FileLock

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if not path.exists():
                _write(path, shape, row, what)
    mapped: Array = np.load(path, mmap_mode="r")
    return mapped


def _write(path: Path, shape: tuple[int, ...], row: Callable[[int], Array], what: str) -> None:
    packed = io.BytesIO()
    layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(packed, layout)
    header, size = packed.getvalue(), 4 * math.prod(shape[1:])
    partial = path.with_name(path.name + ".partial")
    with partial.open("ab") as stream:
        stream.seek(0, io.SEEK_END)
        if stream.tell() < len(header):
            stream.truncate(0)
            stream.write(header)
        done = (stream.tell() - len(header)) // size
        stream.truncate(len(header) + done * size)
        _require(path.parent, (shape[0] - done) * size)
        made = each(lambda i: row(done + i), shape[0] - done)
        for one in progress(made, shape[0], what, done=done):
            stream.write(np.asarray(one, dtype="<f4").tobytes())
        partial.replace(path)


def _require(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder}: {size / 1e9:.1f} GB are needed for preprocessed volumes and "
            f"{free / 1e9:.1f} GB are free: make room, or link the folder to a larger disk"
        )
