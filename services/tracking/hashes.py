"""The hashes of files and folders by which DVC knows them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from contracts.console import say

UNKNOWN = "unknown"
MISSING = "missing"


def content_hashes(paths: Iterable[Path]) -> dict[Path, str]:
    """Hash files and folders as DVC does: equal to what `dvc.lock` says of the same content.

    DVC keeps the hashes of unchanged files, so only what is new is read.

    Parameters
    ----------
    paths : absolute, or relative to the working directory.

    Returns
    -------
    Path -> MD5, with ``.dir`` at the end for a folder; ``missing`` where there is nothing;
    ``unknown`` for a folder where DVC is not installed or cannot read it.
    """
    found = dict.fromkeys(paths, MISSING)
    present = [path for path in found if path.exists()]
    if present:
        found.update(_present(present))
    return found


def file_hash(path: Path) -> str:
    """The MD5 of a file, or ``missing``; DVC uses the same."""
    if not path.is_file():
        return MISSING
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _present(paths: list[Path]) -> dict[Path, str]:
    try:
        from dvc.exceptions import DvcException
        from dvc.fs import LocalFileSystem
        from dvc.repo import Repo
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.db import HashFileDB
    except ImportError:
        return {path: UNKNOWN if path.is_dir() else file_hash(path) for path in paths}
    found = dict.fromkeys(paths, UNKNOWN)
    disk = LocalFileSystem()
    try:
        # Outside a DVC project there is no store of known hashes: everything is read.
        with Repo(uninitialized=True) as repo:
            known = repo.cache.local or HashFileDB(disk, "")
            for path in paths:
                place = str(path.resolve())
                _, _, content = build(
                    known, place, disk, "md5", dry_run=True, ignore=repo.dvcignore
                )
                found[path] = str(content.hash_info.value)
    except (DvcException, OSError) as error:
        # The run goes on without these hashes: its tags say that they are unknown.
        left = ", ".join(str(path) for path, value in found.items() if value == UNKNOWN)
        say(f"lineage: DVC could not hash {left} ({error}); the tags of the run say '{UNKNOWN}'")
    return found
