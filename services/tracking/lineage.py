"""Which code, data and parameters a run was made from."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from services.tracking import store

COMMIT_VARIABLE = "DTI_GIT_COMMIT"
DIRTY_VARIABLE = "DTI_GIT_DIRTY"
UNKNOWN = "unknown"
MISSING = "missing"
_LOCK = "dvc.lock"
_PARAMS = "params.yaml"
_GIT_WITHIN_S = 20.0


def lineage(root: Path | None = None, split: Path | None = None) -> dict[str, str]:
    """The tags that lead from a run back to its sources.

    Compute it once, where the command was started, and pass it on: a worker of a cluster has
    no git folder. What cannot be found is said in the tag, never raised.

    Parameters
    ----------
    root : folder with the git work tree, `dvc.lock` and `params.yaml`.
    split : the file that says which subject is in which split.

    Returns
    -------
    ``git.commit``, ``git.dirty`` (true, false or unknown), ``dvc.lock`` and ``params.yaml``
    (MD5 of the files), ``data.<path>`` (MD5 of each output in `dvc.lock`), ``split.digest``.
    """
    root = root or store.project_root()
    commit, dirty = _git(root)
    tags = {
        "git.commit": commit,
        "git.dirty": dirty,
        _LOCK: _md5(root / _LOCK),
        _PARAMS: _md5(root / _PARAMS),
        "split.digest": _md5(split) if split else MISSING,
    }
    if commit != UNKNOWN:
        tags["mlflow.source.git.commit"] = commit
    return tags | {f"data.{path}": digest for path, digest in outputs(root / _LOCK).items()}


def outputs(lock: Path) -> dict[str, str]:
    """Path -> MD5 of every output that a `dvc.lock` records; empty where there is none."""
    if not lock.exists():
        return {}
    from ruamel.yaml import YAML, YAMLError

    try:
        document: Any = YAML(typ="safe").load(lock.read_text())
        stages = document["stages"].values()
        return {
            out["path"]: out[out.get("hash", "md5")] for stage in stages for out in stage["outs"]
        }
    except (YAMLError, OSError, KeyError, TypeError, AttributeError):
        return {}


def _md5(path: Path) -> str:
    # MD5 because DVC uses it: the same file has the same digest in both.
    if not path.is_file():
        return MISSING
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _git(root: Path) -> tuple[str, str]:
    if (root / ".git").exists():
        commit = _ask_git(root, "rev-parse", "HEAD")
        # DVC rewrites dvc.lock while it runs; its own digest says what it held.
        changed = _ask_git(root, "status", "--porcelain", "--", ".", f":!{_LOCK}")
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
