"""Which code, data and parameters a run was made from."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contracts.params import PARAMS_FILE
from contracts.paths import DATA
from services.tracking import store
from services.tracking.hashes import UNKNOWN, content_hashes, file_hash

COMMIT_VARIABLE = "DTI_GIT_COMMIT"
DIRTY_VARIABLE = "DTI_GIT_DIRTY"
LOCK = Path("dvc.lock")
_GIT_WITHIN_S = 20.0


def lineage(inputs: Iterable[Path], code: Path | None = None) -> dict[str, str]:
    """The tags that lead from a run back to its sources.

    Compute it once, where the command was started, and pass it on: a worker of a cluster has
    no git folder. What cannot be found is said in the tag, never raised.

    Parameters
    ----------
    inputs : the files and folders that the run reads, relative to the working directory.
    code : folder with the git work tree; default: the project.

    Returns
    -------
    ``git.commit``, ``git.dirty`` (true, false or unknown), ``params.yaml`` (MD5 of the file), and
    ``data.<path>`` (DVC's hash) of each input as it is now.
    """
    commit, dirty = _git(code or store.project_root())
    tags = {"git.commit": commit, "git.dirty": dirty, PARAMS_FILE.name: file_hash(PARAMS_FILE)}
    return tags | {data_tag(path): found for path, found in content_hashes(inputs).items()}


def data_tag(path: Path | str) -> str:
    """The tag that holds the hash of a file or folder, e.g. ``data.data/split.json``."""
    return f"data.{Path(path).as_posix()}"


def recorded_tags(output: Path, content: str, lock: Path = LOCK) -> dict[str, str]:
    """The data that the stage which made `output` read and made, as `dvc.lock` records it.

    Parameters
    ----------
    content : DVC's hash of `output`.

    Returns
    -------
    ``data.<path>`` -> hash of every dependency and output in `data/`; empty if no stage of
    `dvc.lock` recorded this content of `output`.
    """
    for stage in _stages(lock):
        made = _recorded(stage.get("outs"))
        if made.get(output.as_posix()) == content:
            entries = _recorded(stage.get("deps")) | made
            return {
                data_tag(path): value
                for path, value in entries.items()
                if Path(path).is_relative_to(DATA)
            }
    return {}


def _stages(lock: Path) -> list[dict[str, Any]]:
    from ruamel.yaml import YAML, YAMLError

    try:
        return list(YAML(typ="safe").load(lock.read_text())["stages"].values())
    except (YAMLError, OSError, KeyError, TypeError, AttributeError):
        return []


def _recorded(entries: list[dict[str, Any]] | None) -> dict[str, str]:
    hashed = [(entry["path"], entry.get(entry.get("hash", "md5"))) for entry in entries or []]
    return {path: value for path, value in hashed if value}


def _git(root: Path) -> tuple[str, str]:
    if (root / ".git").exists():
        commit = _ask_git(root, "rev-parse", "HEAD")
        # DVC rewrites dvc.lock while it runs; the tags `data.` say what it held.
        changed = _ask_git(root, "status", "--porcelain", "--", ".", f":!{LOCK}")
        if commit and changed is not None:
            return commit, "true" if changed else "false"
    commit = os.environ.get(COMMIT_VARIABLE) or UNKNOWN
    return commit, os.environ.get(DIRTY_VARIABLE) or UNKNOWN


def _ask_git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_WITHIN_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
