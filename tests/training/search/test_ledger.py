"""MLflow is what the study says, however often and whenever it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from contracts.tracking import EXPERIMENT
from services.tracking import store
from services.tracking.views import SAMPLES
from tests.training.search.tiny import result, study
from training.search import ledger as ledgers
from training.search.driver import Driver
from training.search.ledger import Ledger, keep_picture
from training.search.study import Study

ME = Driver.new().id


@pytest.fixture
def chosen(tmp_path: Path) -> Study:
    made = study(tmp_path / "study")
    made.fill()
    return made


def made(chosen: Study, uri: str) -> Ledger:
    return Ledger(chosen, uri, {"dim": "3d"}, {"trials": 6})


def runs(stage: str) -> list[Any]:
    client = store.client()
    place = client.get_experiment_by_name(EXPERIMENT)
    assert place is not None
    found = client.search_runs([place.experiment_id], f"tags.stage = '{stage}'")
    return sorted(found, key=lambda run: run.info.run_name)


def ended(chosen: Study) -> None:
    """A trial that is done, one that failed, one that was lost and one that runs."""
    for _ in range(4):
        chosen.ask(ME)
    losses = {"held_out_loss": {"0": 1.0, "10": 0.9}}
    chosen.tell(0, result(0.25, **losses))
    keep_picture(chosen.folder / "trials" / "0", [np.zeros((4, 6))])
    chosen.tell_failed(1, "MemoryError: no room")
    chosen.tell_lost(2, "killed")


def everything() -> dict[str, Any]:
    """All points of all curves of the trials, and when they ended."""
    client, found = store.client(), {}
    for run in runs("trial"):
        points = {
            key: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        found[run.info.run_id] = run.info.end_time, points
    return found


def test_two_drivers_make_one_run_of_each_trial_and_one_curve(
    chosen: Study, tracking_uri: str
) -> None:
    both = [made(chosen, tracking_uri) for _ in range(2)]
    for ledger in both:
        assert ledger.try_sync()
    ended(chosen)
    for ledger in both:
        for step in (0, 10):
            ledger.progress(3, step, 1.0)
            assert ledger.try_sync()
    assert len(runs("sweep")) == 1
    assert len(runs("trial")) == 4
    curves = [points["val/loss"] for _, points in everything().values() if "val/loss" in points]
    assert sorted(len(curve) for curve in curves) == [2, 2]


def test_every_trial_is_a_nested_run_with_what_the_study_knows(
    chosen: Study, tracking_uri: str
) -> None:
    ended(chosen)
    ledger = made(chosen, tracking_uri)
    ledger.progress(3, 10, 0.8)
    assert ledger.try_sync()
    (parent,) = runs("sweep")
    assert parent.data.params == {"trials": "6"}
    found = runs("trial")
    assert [run.info.status for run in found] == ["FINISHED", "FAILED", "KILLED", "RUNNING"]
    assert {run.data.tags["mlflow.parentRunId"] for run in found} == {parent.info.run_id}
    done = found[0].data
    assert done.metrics["val/regional_distance"] == 0.25
    assert done.metrics["adapter/trainable"] == 100
    assert done.params["lora.rank"] == "4"
    assert done.params["method"] == "lora"
    client = store.client()
    curve = client.get_metric_history(found[0].info.run_id, "val/loss")
    assert [(point.step, point.value) for point in curve] == [(0, 1.0), (10, 0.9)]
    assert client.get_metric_history(found[3].info.run_id, "val/loss")[0].value == 0.8
    assert found[1].data.tags["failure"] == "MemoryError: no room"
    images = [one.path for one in client.list_artifacts(found[0].info.run_id, "images")]
    assert any(SAMPLES.rpartition("/")[2] in path for path in images)


def test_writing_again_or_from_another_driver_changes_nothing(
    chosen: Study, tracking_uri: str
) -> None:
    ended(chosen)
    first = made(chosen, tracking_uri)
    assert first.try_sync()
    before = everything()
    writes: list[int] = []
    for ledger in (first, made(chosen, tracking_uri)):
        real = ledger._write

        def write(*arguments: Any, real: Any = real) -> None:
            writes.append(arguments[2].number)
            real(*arguments)

        ledger._write = write  # type: ignore[method-assign, assignment]
        assert ledger.try_sync()
    # Of the running trial another driver cannot know what was written.
    assert writes == [3]
    assert everything() == before


def test_a_server_that_is_away_stops_nothing_and_is_made_good(
    chosen: Study,
    tracking_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ledgers, "_SYNC_EVERY_S", 0.02)
    monkeypatch.setattr(ledgers, "_PATIENCE_S", 0.1)
    ledger, real = made(chosen, tracking_uri), store.client

    def away(uri: str | None = None) -> Any:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr(store, "client", away)
        with ledger.writing():
            ended(chosen)
    told = capsys.readouterr().err
    assert told.count("does not answer, the search goes on: connection refused") == 1
    assert "is written there when the same command is run again" in told
    assert store.client is real
    later = made(study(chosen.folder), tracking_uri)
    with later.writing():
        pass
    # The lost and the running one belong to a driver that still runs: this process.
    statuses = [run.info.status for run in runs("trial")]
    assert statuses == ["FINISHED", "FAILED", "KILLED", "RUNNING"]
    chosen.release(ME, "stopped")
    assert later.try_sync()
    assert [run.info.status for run in runs("trial")][3] == "KILLED"


def test_the_end_of_a_study_is_on_its_run(chosen: Study, tracking_uri: str, tmp_path: Path) -> None:
    ended(chosen)
    page = tmp_path / "study.html"
    page.write_text("x")
    ledger = made(chosen, tracking_uri)
    for _ in range(2):
        assert ledger.conclude(
            {"chosen_distance": 0.2}, [(5.0, 0.1), (6.0, 0.3)], "# Chosen", [page]
        )
    (parent,) = runs("sweep")
    client = store.client()
    curve = client.get_metric_history(parent.info.run_id, "search/hypervolume")
    assert [(point.step, point.value) for point in curve] == [(1, 0.1), (2, 0.3)]
    assert parent.data.metrics["search/chosen_distance"] == 0.2
    assert parent.data.tags["mlflow.note.content"] == "# Chosen"
    assert [one.path for one in client.list_artifacts(parent.info.run_id)] == ["study.html"]
    assert parent.info.status == "FINISHED"
    again = made(chosen, tracking_uri)
    assert again.try_sync()
    assert again.parent == parent.info.run_id
