"""Output of a stage that is either whole or not there, also after a kill.

DVC deletes a stage's outputs before it runs the stage, and a run may be killed at any time. A
stage therefore writes beside its output's final place and renames at the end. Whoever finds the
output missing is told how to make it or to bring the last good one back (`hint`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which replaces `out` when the block ends without error.

    Until then `out` stays as it is. Folders that an earlier, killed run left are removed.
    """
    partial = out.with_name(f"{out.name}.partial")
    old = out.with_name(f"{out.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    # Deleting takes time, and a folder of which a part is deleted looks whole; renaming does not.
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file; a stop in the middle leaves no half file under this name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder by hard links, or by copies where the file systems differ."""
    shutil.copytree(source, target, copy_function=_link)


def hint(stage: str, output: Path) -> str:
    """Return what to do when the output of a stage is missing."""
    return (
        f"run `dvc repro {stage}` first; if a run was stopped, `dvc checkout {output}` brings the "
        "last good output back"
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # The target is on another file system.
        shutil.copy2(source, target)
