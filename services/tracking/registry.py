"""The registered generators: `dti-2d` and `dti-3d`, their versions and their champion."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contracts.errors import UserError
from services.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model

Dim = Literal["2d", "3d"]
ALIAS = "champion"
CACHE_VARIABLE = "DTI_CACHE"
_DESCRIPTION = (
    "A generator of synthetic FA and MD maps. `@champion` is the version that is served; the tag "
    "`gate` of a version says whether it may be."
)


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


def model_name(dim: Dim) -> str:
    """The registered model of one dimension."""
    return f"dti-{dim}"


def champion(dim: Dim, uri: str | None = None) -> Champion:
    """The generator that `models:/dti-<dim>@champion` points to, fetched once per digest.

    Parameters
    ----------
    uri : tracking store; default `services.tracking.store.tracking_uri()`.

    Raises
    ------
    UserError : if there is no champion, or the store does not answer.
    """
    name = model_name(dim)
    version = aliased(name, uri)
    if version is None:
        raise UserError(
            f"no model '{name}@{ALIAS}' in {uri or store.tracking_uri()}; train and register one "
            "with `dvc repro`, or register what is trained with `python -m training.register`"
        )
    digest = version.tags["digest"]
    folder = _cache() / f"{name}-{digest[:16]}"
    if not folder.exists():
        _fetch(version, folder, uri)
    return Champion(name=name, version=str(version.version), digest=digest, folder=folder)


def aliased(name: str, uri: str | None = None) -> ModelVersion | None:
    """The version that carries the champion alias, or None."""
    client = store.client(uri)
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, ALIAS)
    except MlflowException as error:
        # An unknown model and an unknown alias have different codes, none of them our business.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise UserError(f"the registry cannot be read: {str(error).splitlines()[0]}") from error


def _cache() -> Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else store.project_root() / "data" / "work" / "champions"


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


def find(name: str, digest: str, uri: str | None = None) -> ModelVersion | None:
    """The newest version of a model with this content digest, or None."""
    found = store.client(uri).search_model_versions(f"name = '{name}'")
    same = [version for version in found if version.tags.get("digest") == digest]
    return max(same, key=lambda version: int(version.version), default=None)


def add(
    name: str,
    save: Callable[[Path, Model], None],
    run_id: str,
    tags: Mapping[str, str],
    description: str,
    uri: str | None = None,
) -> ModelVersion:
    """Store a model and register it as the next version of `name`.

    Parameters
    ----------
    save : writes an MLflow model into an empty folder, with the given entity.
    run_id : the run that made the model.
    tags : of the version; `digest` is the content hash by which it is found again.
    description : Markdown.

    Raises
    ------
    UserError : if the store does not take it.
    """
    import tempfile

    client = store.client(uri)
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        _ensure(client, name)
        experiment = client.get_run(run_id).info.experiment_id
        # Made with the client, not `log_model`: that one would reopen the run, and its duration
        # would then count from training to registration.
        logged = client.create_logged_model(
            experiment, name=name, source_run_id=run_id, tags=dict(tags), model_type="generator"
        )
        entity = Model(run_id=run_id, model_id=logged.model_id, model_uuid=logged.model_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            save(folder, entity)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        return client.create_model_version(
            name,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=description,
            model_id=logged.model_id,
        )
    except MlflowException as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the registry did not take {name}: {reason}") from error


def tag(version: ModelVersion, tags: Mapping[str, str], uri: str | None = None) -> None:
    """Set those tags of a version that have another value now."""
    for key, value in tags.items():
        if version.tags.get(key) != value:
            store.client(uri).set_model_version_tag(version.name, str(version.version), key, value)


def promote(name: str, version: str, uri: str | None = None) -> None:
    """Let the champion alias point to a version."""
    store.client(uri).set_registered_model_alias(name, ALIAS, version)


def _ensure(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
