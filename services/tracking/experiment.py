"""The MLflow experiment that holds the runs of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.errors import UserError
from services.tracking import store, views

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_NOTE = "mlflow.note.content"
_TEXT = """# Generators of synthetic FA and MD maps
Runs of one stage have the same tag `stage`: train (a base), adapt (a base adapted to a group),
sweep (a search for adapter settings) and, nested under it, trial.

| metric | meaning | better |
|---|---|---|
| `train/loss` | loss by step; with prediction `matched` 1 is the closed-form Gaussian's | lower |
| `val/regional_distance` | distance of samples to the target group's validation subjects | lower |
| `val/copy_share` | share of samples that are near copies of a training subject | lower |
| `test/...` | audit: differences from held-out subjects, 0 where there are none | nearer 0 |
| `test/..._real_ref` | the same of real validation subjects: the best to hope for | |
| `test/..._gaussian_ref` | of a Gaussian model without a network: what to beat | |

A base is scored on the base group, an adapted generator on the target group (tag `group`): compare
within a group.

The views *Leaderboard*, *Samples and curves* and *Trials* are saved with the experiment.
"""


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The id of an experiment; it is made, with its note and views, if it is not there.

    Raises
    ------
    UserError : if the experiment was deleted in MLflow.
    """
    found = client.get_experiment_by_name(name) or _create(client, name, uri)
    if found.lifecycle_stage != "active":
        raise UserError(
            f"experiment '{name}' was deleted in {uri}: restore it with `mlflow experiments "
            f"restore -x {found.experiment_id}`, or use another name"
        )
    if found.tags.get(_NOTE) != _TEXT:
        client.set_experiment_tag(found.experiment_id, _NOTE, _TEXT)
    views.save(client, found)
    identity: str = found.experiment_id
    return identity


def _create(client: MlflowClient, name: str, uri: str) -> Experiment:
    from mlflow.exceptions import MlflowException

    folder = store.local_folder(uri)
    # MLflow's own default is relative to the working directory, which a worker does not share.
    place = None if folder is None else (folder / "artifacts" / name).resolve().as_uri()
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=place))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)  # another process was faster
