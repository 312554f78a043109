"""Versions of a registered model, fetched to this machine: the champion, and adapters by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import paths
from contracts.errors import UserError
from models.config import Dim
from registry.versions import ALIAS, find, model_name, named
from services.tracking import store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CACHE_VARIABLE = "DTI_CACHE"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A registered generator on this machine's disk.

    Parameters
    ----------
    name, version : of the registered model.
    digest : content hash of the generator.
    folder : what `models.adapters.adapted.load` takes; the base of an adapted one lies beside it.
    """

    name: str
    version: str
    digest: str
    folder: Path


def fetch_champion(dim: Dim, uri: str | None = None) -> Fetched:
    """Find the generator that `models:/dti-<dim>@champion` points to; fetch it once per digest.

    Parameters
    ----------
    uri : tracking store; default `services.tracking.store.tracking_uri()`.

    Raises
    ------
    UserError : if there is no champion, its base is not registered, or the store does not answer.
    """
    name = model_name(dim)
    version = named(name, ALIAS, uri)
    if version is None:
        raise UserError(
            f"no model '{name}@{ALIAS}' in {uri or store.tracking_uri()}; train and register one "
            "with `dvc repro`, or register what is trained with `python -m registry.register`"
        )
    return _fetched(version, uri)


def fetch_adapter(dim: Dim, label: str, uri: str | None = None) -> Fetched:
    """Find a registered adapted generator by an alias or its version's number; fetch it once.

    Parameters
    ----------
    label : such as ``target`` or ``2``.

    Raises
    ------
    UserError : if there is none of this name, or it is a base; and as `fetch_champion`.
    """
    from models.adapters.adapted import base_digest

    name = model_name(dim)
    version = named(name, label, uri)
    if version is not None:
        found = _fetched(version, uri)
        if base_digest(found.folder) is not None:
            return found
    what = "no such version" if version is None else "a generator without adapter"
    known = ", ".join(_adapters(name, uri)) or "none"
    raise UserError(
        f"adapter '{label}': expected the alias or number of an adapted version of {name} (there "
        f"are: {known}), found {what}; register others with `python -m registry.register`"
    )


def _adapters(name: str, uri: str | None) -> list[str]:
    """What the adapted versions of a model go by: aliases, and numbers where there is none."""
    client = store.client(uri)
    found = client.search_model_versions(f"name = '{name}' and tags.kind = 'adapted'")
    # The search gives versions without their aliases.
    numbers = sorted(str(version.version) for version in found)
    aliases = client.get_registered_model(name).aliases if numbers else {}
    return sorted(a for a, n in aliases.items() if str(n) in numbers) + numbers


def _fetched(version: ModelVersion, uri: str | None) -> Fetched:
    """Fetch a version, and the base that it adapts, into the cache."""
    from models.adapters.adapted import base_digest

    name, digest = version.name, version.tags["digest"]
    folder = _place(name, digest)
    if not folder.exists():
        _fetch(version, folder, uri)
    wanted = base_digest(folder)
    if wanted is not None and not _place(name, wanted).exists():
        base = find(name, wanted, uri)
        if base is None:
            raise UserError(
                f"{name} version {version.version} adapts the base {wanted}, which is not "
                f"registered in {uri or store.tracking_uri()}: register it with "
                "`python -m registry.register` where it was trained"
            )
        _fetch(base, _place(name, wanted), uri)
    return Fetched(name=name, version=str(version.version), digest=digest, folder=folder)


def _place(name: str, digest: str) -> Path:
    """Where a generator is kept: all of a model side by side, so that an adapter finds its base."""
    return _cache() / f"{name}-{digest[:16]}"


def _cache() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else store.project_root() / paths.WORK / "champions"


def _fetch(version: ModelVersion, folder: Path, uri: str | None) -> None:
    import tempfile

    import mlflow.artifacts
    from mlflow.models import Model

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        fetched = Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}",
                dst_path=scratch,
                tracking_uri=uri or store.tracking_uri(),
            )
        )
        flavour: dict[str, Any] = Model.load(fetched).flavors["python_function"]
        ready = fetched / flavour["artifacts"]["generator"]["path"]
        try:
            ready.rename(folder)
        except OSError:
            if not folder.exists():  # else another process was faster: its copy is as good
                raise
