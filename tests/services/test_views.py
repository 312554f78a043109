from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from services.tracking import start_run, store, views


def tags(name: str = "e") -> dict[str, str]:
    found: dict[str, str] = store.client().get_experiment_by_name(name).tags
    return {key: value for key, value in found.items() if key.startswith("mlflow.sharedView")}


def state(entry: str) -> dict[str, Any]:
    packed = json.loads(entry)["state"].removeprefix("deflate;")
    unpacked: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return unpacked


def test_an_experiment_gets_its_views_once(tracking_uri: str) -> None:
    start_run("e", "first", {}, {}).finish()
    before = tags()
    start_run("e", "second", {}, {}).finish()
    assert tags() == before
    assert {json.loads(entry)["name"] for entry in before.values()} == {
        "1 Leaderboard",
        "2 Samples and curves",
        "3 Trials",
    }
    assert views.present(store.client().get_experiment_by_name("e").tags)


def test_every_filter_and_order_of_a_view_is_one_that_mlflow_takes(tracking_uri: str) -> None:
    """The page sends them as they are; MLflow knows no "or", for one."""
    for stage in ("train", "adapt", "sweep", "trial"):
        with start_run("e", stage, {}, {"stage": stage}) as run:
            run.metrics({"val/regional_distance": 0.1})
    client = store.client()
    place = client.get_experiment_by_name("e").experiment_id
    shown = {}
    for key, entry in tags().items():
        view = state(entry)
        way = "ASC" if view["orderByAsc"] else "DESC"
        runs = client.search_runs(
            [place], view["searchFilter"], order_by=[f"{view['orderByKey']} {way}"]
        )
        shown[key.rpartition(".")[2]] = {run.data.tags["stage"] for run in runs}
    assert shown == {
        "leaderboard": {"train", "adapt"},
        "samples": {"train", "adapt"},
        "trials": {"trial"},
    }


@pytest.mark.parametrize("view", views.views(), ids=lambda view: view.key)
def test_every_card_lies_in_a_section_and_has_a_name_of_its_own(view: views.View) -> None:
    sections = {section["uuid"] for section in view.state.get("compareRunSections", [])}
    cards = view.state.get("compareRunCharts", [])
    assert {card["metricSectionId"] for card in cards} == sections
    assert len({card["uuid"] for card in cards}) == len(cards)


def test_views_that_cannot_be_saved_do_no_harm(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    start_run("e", "first", {}, {}).finish()
    experiment = store.client().get_experiment_by_name("e")

    class Refusing:
        def set_experiment_tag(self, *_: Any) -> None:
            raise MlflowException("no")

    experiment.tags.clear()
    views.save(Refusing(), experiment)


def test_a_link_opens_the_page_of_models_on_its_view() -> None:
    board = views.views()[0]
    assert board.link("http://h:5000/", "7") == (
        "http://h:5000/#/experiments/7/runs?workflowType=machine_learning"
        "&compareRunsMode=TABLE&viewStateShareKey=leaderboard"
    )
