"""Makes a registered model in MLflow equal to what the files say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.tracking import EXPERIMENT
from registry import versions
from registry.description import PROVENANCE, ModelDescription, VersionDescription, owned
from registry.gate import Kind
from registry.packaging import save_model
from services.tracking import store
from services.tracking.run import start_run

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_SOURCE = "source.run"


def reconcile(model: ModelDescription) -> list[str]:
    """Make the versions, their tags and the champion equal to what the files say.

    It may be asked at any time, again after it was stopped, and by several processes at once. The
    champion moves last, so it is always a version that is whole, as is the base it may need.

    Returns
    -------
    What was changed, a phrase each; empty if nothing had to.

    Raises
    ------
    UserError : if the store does not answer or refuses.
    """
    with versions.one_at_a_time(), versions.refusals_told(model.name):
        changes: list[str] = []
        found: dict[Kind, ModelVersion] = {}
        for kind, described in model.versions.items():
            found[kind], changed = _version(model.name, described)
            changes += changed
        for kind, described in model.versions.items():
            changes += _alias(model.name, described.alias, found[kind], kind)
        chosen = model.gate.champion
        changes += _alias(model.name, versions.ALIAS, found[chosen], chosen)
    return changes


def _alias(name: str, alias: str, version: ModelVersion, kind: Kind) -> list[str]:
    """Let an alias point to a version; returns what was changed."""
    before = versions.named(name, alias)
    number = str(version.version)
    if before is not None and str(before.version) == number:
        return []
    versions.promote(name, number, alias)
    return [f"{alias} is now version {number} ({kind})"]


def _version(name: str, described: VersionDescription) -> tuple[ModelVersion, list[str]]:
    """The version of one generator, made or corrected, and what was changed."""
    version = versions.find(name, described.digest)
    changes = []
    if version is None:
        version = versions.add(
            name,
            lambda path, entity: save_model(
                name, described.generator, described.folder, path, entity
            ),
            run_id=_source_run(described) or _stand_in(described),
            tags=described.tags,
            description=described.text,
        )
        changes.append(f"version {version.version} ({described.name}) added")
    label = f"version {version.version}"
    tags = versions.set_tags(version, described.tags, owned)
    if tags:
        changes.append(f"tags of {label} set: {', '.join(tags)}")
    if versions.set_description(version, described.text):
        changes.append(f"description of {label} set")
    if _tag_run(_source_run(described) or version.run_id, described.lineage):
        changes.append(f"lineage of the run of {label} set")
    return version, changes


def _source_run(described: VersionDescription) -> str | None:
    """The run that trained a generator, or the stand-in for it; None if the store has neither."""
    if _tags_of_run(described.run_id) is not None:
        return described.run_id
    client = store.client()
    places = [place.experiment_id for place in client.search_experiments()]
    wanted = f"tags.`{_SOURCE}` = '{described.run_id}'"
    found = client.search_runs(places, wanted, max_results=1)
    return str(found[0].info.run_id) if found else None


def _stand_in(described: VersionDescription) -> str:
    """Make a run in the place of one that another store keeps; returns its id.

    It carries the lineage that the training wrote into the generator's folder.
    """
    tags = {
        **{key: described.tags[key] for key in PROVENANCE if key in described.tags},
        "stage": "registered",
        "dim": described.tags["dim"],
        _SOURCE: described.run_id,
    }
    with start_run(EXPERIMENT, described.name, {}, tags, key=described.run_id) as run:
        run.note(f"# Stand-in for run {described.run_id}, which another store holds")
    return run.id


def _tag_run(run_id: str, tags: dict[str, str]) -> bool:
    """Set those tags of a run that have another value; returns whether there were any."""
    held = _tags_of_run(run_id)
    if held is None:
        return False
    changed = {key: value for key, value in tags.items() if held.get(key) != value}
    for key, value in changed.items():
        store.client().set_tag(run_id, key, value)
    return bool(changed)


def _tags_of_run(run_id: str) -> dict[str, str] | None:
    """The tags of a run; None if the store does not have it or it was deleted there."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.client().get_run(run_id)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    tags: dict[str, str] = run.data.tags
    return tags if run.info.lifecycle_stage == "active" else None
