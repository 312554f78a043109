"""The saved views of an experiment in MLflow's page.

MLflow's own page opens on tables without a single metric. A view is an experiment tag that holds
the page's state; its format is not documented (read from MLflow 3.17), so a failure here is
harmless: the page then opens as MLflow ships it.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_TAG = "mlflow.sharedViewState."
_HEADER = "deflate;"

# MLflow's search knows no "or".
_MODELS = "tags.stage != 'trial' and tags.stage != 'sweep'"
SCORES = ("test/kernel_distance", "test/copy_share")
YARDSTICKS = ("test/kernel_distance_gaussian_ref", "test/kernel_distance_real_ref")
CURVES = ("train/loss",)
# A card shows one step; `Run.finish` logs a run's last picture under this key, without step.
SAMPLES = "final/fa_md"
TRIAL_PARAMS = ("method", "learning_rate", "steps", "ema", "mean_shift")
TRIAL_METRICS = (
    "val/copy_share",
    "train/seconds",
    "adapter/trainable",
    "val/regional_distance",
)


@dataclass(frozen=True, slots=True)
class View:
    """One saved view.

    Parameters
    ----------
    key : its part of the link.
    title : what people read.
    mode : the page's tab, TABLE or CHART.
    state : the page's state, as its JavaScript keeps it.
    """

    key: str
    title: str
    mode: str
    state: dict[str, Any]

    def link(self, base: str, experiment: str) -> str:
        """Its address under `base`, e.g. ``http://127.0.0.1:5000``."""
        return (
            f"{base.rstrip('/')}/#/experiments/{experiment}/runs?workflowType=machine_learning"
            f"&compareRunsMode={self.mode}&viewStateShareKey={self.key}"
        )


def views() -> tuple[View, ...]:
    """Leaderboard, samples and curves, trials."""
    return (
        View("leaderboard", "1 Leaderboard", "TABLE", _leaderboard()),
        View("samples", "2 Samples and curves", "CHART", _samples()),
        View("trials", "3 Trials", "CHART", _trials()),
    )


def save(client: MlflowClient, experiment: Experiment) -> None:
    """Write the views that the experiment does not have yet, as they are now."""
    from mlflow.exceptions import MlflowException

    for view in views():
        state = _pack(view.state)
        old = experiment.tags.get(_TAG + view.key, "")
        if state in old:
            continue
        now = int(time.time() * 1000)
        entry = {"name": view.title, "createdAt": now, "updatedAt": now, "state": state}
        try:
            client.set_experiment_tag(experiment.experiment_id, _TAG + view.key, json.dumps(entry))
        except (MlflowException, OSError):
            return


def links(base: str, experiment: str) -> list[str]:
    """One line for each view: its title and address."""
    return [f"{view.title:<22}{view.link(base, experiment)}" for view in views()]


def present(tags: Mapping[str, str]) -> bool:
    """Whether an experiment with these tags has our views."""
    return any(tag.startswith(_TAG) for tag in tags)


def _pack(state: dict[str, Any]) -> str:
    packed = zlib.compress(json.dumps(state, sort_keys=True).encode(), 9)
    return _HEADER + base64.b64encode(packed).decode()


def _leaderboard() -> dict[str, Any]:
    columns = ["attributes.`Created`", "attributes.`Duration`"]
    columns += [f"tags.`{tag}`" for tag in ("stage", "dim", "group")]
    columns += [f"metrics.`{metric}`" for metric in (*SCORES, *YARDSTICKS)]
    return _state(_MODELS, order=f"metrics.`{SCORES[0]}`") | {"selectedColumns": columns}


def _samples() -> dict[str, Any]:
    scores = _section("0 scores", columns=len(SCORES))
    curves = _section("1 curves", columns=len(CURVES))
    images = _section("2 samples", columns=1)
    cards = [_card("BAR", scores, metric) for metric in SCORES]
    cards += [_card("LINE", curves, metric) for metric in CURVES]
    cards.append(
        _card("IMAGE", images, SAMPLES)
        | {"imageKeys": [SAMPLES], "step": 0, "showRunParams": False, "metricKey": ""}
    )
    return _state(_MODELS) | {
        "compareRunSections": [scores, curves, images],
        "compareRunCharts": cards,
        "isAccordionReordered": True,
    }


def _trials() -> dict[str, Any]:
    settings = _section("0 settings and scores", columns=1)
    scores = _section("1 scores", columns=len(TRIAL_METRICS))
    plane = _card("PARALLEL", settings, "") | {
        "selectedParams": list(TRIAL_PARAMS),
        "selectedMetrics": list(TRIAL_METRICS),
        "showAllRuns": True,
    }
    cards = [plane] + [_card("BAR", scores, metric) for metric in TRIAL_METRICS]
    return _state("tags.stage = 'trial'", order=f"metrics.`{TRIAL_METRICS[-1]}`") | {
        "compareRunSections": [settings, scores],
        "compareRunCharts": cards,
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": [f"metrics.`{metric}`" for metric in TRIAL_METRICS],
    }


def _state(search: str, order: str = "attributes.start_time") -> dict[str, Any]:
    return {
        "searchFilter": search,
        "orderByKey": order,
        "orderByAsc": order.startswith("metrics"),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
    }


def _section(name: str, columns: int) -> dict[str, Any]:
    return {
        "uuid": f"dti-{name}",
        "name": name,
        "columns": columns,
        "display": True,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def _card(kind: str, section: dict[str, Any], metric: str) -> dict[str, Any]:
    return {
        "type": kind,
        "uuid": f"{section['uuid']}-{kind.lower()}-{metric}",
        "metricSectionId": section["uuid"],
        "metricKey": metric,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 100 if kind == "PARALLEL" else 20,
    }
