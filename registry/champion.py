"""The champion of a registered model: the version that is served, fetched to this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import paths
from contracts.errors import UserError
from models.config import Dim
from registry.versions import ALIAS, champion_version, model_name
from services.tracking import store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CACHE_VARIABLE = "DTI_CACHE"


@dataclass(frozen=True, slots=True)
class Champion:
    """A registered generator on this machine's disk.

    Parameters
    ----------
    name, version : of the registered model.
    digest : content hash of the generator.
    folder : what `Generator.load` takes.
    """

    name: str
    version: str
    digest: str
    folder: Path


def fetch_champion(dim: Dim, uri: str | None = None) -> Champion:
    """Find the generator that `models:/dti-<dim>@champion` points to; fetch it once per digest.

    Parameters
    ----------
    uri : tracking store; default `services.tracking.store.tracking_uri()`.

    Raises
    ------
    UserError : if there is no champion, or the store does not answer.
    """
    name = model_name(dim)
    version = champion_version(name, uri)
    if version is None:
        raise UserError(
            f"no model '{name}@{ALIAS}' in {uri or store.tracking_uri()}; train and register one "
            "with `dvc repro`, or register what is trained with `python -m registry.register`"
        )
    digest = version.tags["digest"]
    folder = _cache() / f"{name}-{digest[:16]}"
    if not folder.exists():
        _fetch(version, folder, uri)
    return Champion(name=name, version=str(version.version), digest=digest, folder=folder)


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
