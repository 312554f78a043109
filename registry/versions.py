"""The registered models `dti-2d` and `dti-3d` in MLflow: their versions, tags and aliases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.errors import UserError
from models.config import Dim
from services.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model

ALIAS = "champion"
_DIGEST = "digest"
_MODEL = "models:/"
_DESCRIPTION = (
    "A generator of synthetic FA and MD maps. `@champion` is the version that is served; the tag "
    "`gate` of a version says whether it may be."
)


def model_name(dim: Dim) -> str:
    """The registered model of one dimension."""
    return f"dti-{dim}"


@contextmanager
def one_at_a_time(uri: str | None = None) -> Iterator[None]:
    """Keep other processes from changing the versions of a local store meanwhile.

    A server has no such lock: there `add` looks again after it has added a version.
    """
    folder = store.local_folder(uri or store.tracking_uri())
    if folder is None:
        yield
        return
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".versions.lock"):
        yield


def named(name: str, label: str, uri: str | None = None) -> ModelVersion | None:
    """The version of a model with an alias or a number, or None.

    Raises
    ------
    UserError : if the store cannot be read.
    """
    client = store.client(uri)
    from mlflow.exceptions import MlflowException

    try:
        if label.isdecimal():
            return client.get_model_version(name, label)
        return client.get_model_version_by_alias(name, label)
    except MlflowException as error:
        # MLflow has one code for an unknown model and another for an unknown alias.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise UserError(f"the registry cannot be read: {str(error).splitlines()[0]}") from error


def find(name: str, digest: str, uri: str | None = None) -> ModelVersion | None:
    """The first version of a model that holds the generator with this digest, or None.

    The digest is looked up in the parameters of the stored model, which cannot be changed: a
    version is found even if its tag was changed by hand.
    """
    client = store.client(uri)
    found = sorted(
        client.search_model_versions(f"name = '{name}'"),
        # Those whose tag says so first: mostly there is nothing else to look at.
        key=lambda version: (version.tags.get(_DIGEST) != digest, int(version.version)),
    )
    return next((version for version in found if _digest(client, version) == digest), None)


def add(
    name: str,
    save: Callable[[Path, Model], None],
    run_id: str,
    tags: Mapping[str, str],
    description: str,
    uri: str | None = None,
) -> ModelVersion:
    """Store a model and register it as the next version of `name`.

    The version is made in one request after everything that it points to is stored, so there is
    no incomplete one. If another process has registered the same generator meanwhile, that
    version is returned and no second one stays.

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
    from mlflow.models import Model

    with refusals_told(name):
        _ensure(client, name)
        experiment = client.get_run(run_id).info.experiment_id
        # Made with the client, not `log_model`: that one would reopen the run, and its duration
        # would then count from training to registration.
        logged = client.create_logged_model(
            experiment,
            name=name,
            source_run_id=run_id,
            tags=dict(tags),
            params={_DIGEST: tags[_DIGEST]},
            model_type="generator",
        )
        entity = Model(run_id=run_id, model_id=logged.model_id, model_uuid=logged.model_id)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            save(folder, entity)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.finalize_logged_model(logged.model_id, "READY")
        version = client.create_model_version(
            name,
            source=f"{_MODEL}{logged.model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=description,
            model_id=logged.model_id,
        )
        first = find(name, tags[_DIGEST], uri)
        if first is not None and int(first.version) < int(version.version):
            client.delete_model_version(name, str(version.version))
            client.delete_logged_model(logged.model_id)
            return first
        return version


def set_tags(
    version: ModelVersion,
    tags: Mapping[str, str],
    owned: Callable[[str], bool],
    uri: str | None = None,
) -> list[str]:
    """Make the tags of a version equal to `tags`.

    Parameters
    ----------
    owned : whether a tag of this name that is not in `tags` is to be removed.

    Returns
    -------
    The names of the tags that were set or removed, sorted.
    """
    client = store.client(uri)
    number = str(version.version)
    changed = {key for key, value in tags.items() if version.tags.get(key) != value}
    stale = {key for key in version.tags if key not in tags and owned(key)}
    for key in sorted(changed):
        client.set_model_version_tag(version.name, number, key, tags[key])
    for key in sorted(stale):
        client.delete_model_version_tag(version.name, number, key)
    return sorted(changed | stale)


def set_description(version: ModelVersion, text: str, uri: str | None = None) -> bool:
    """Make the description of a version equal to `text`; returns whether it was another one."""
    if version.description == text:
        return False
    store.client(uri).update_model_version(version.name, str(version.version), text)
    return True


def promote(name: str, version: str, alias: str = ALIAS) -> None:
    """Let an alias point to a version."""
    store.client().set_registered_model_alias(name, alias, version)


@contextmanager
def refusals_told(name: str) -> Iterator[None]:
    """Turn what MLflow refuses into a `UserError` of one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"the registry did not take {name}: {reason}") from error


def _digest(client: MlflowClient, version: ModelVersion) -> str | None:
    from mlflow.exceptions import MlflowException

    tagged: str | None = version.tags.get(_DIGEST)
    if not (version.source or "").startswith(_MODEL):
        return tagged
    # MLflow's SQL store gives no `model_id`; the id is what the source ends with.
    model = version.source.removeprefix(_MODEL)
    try:
        stored: str | None = client.get_logged_model(model).params.get(_DIGEST)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # the files of this version were deleted
    return stored or tagged


def _ensure(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=_DESCRIPTION)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
