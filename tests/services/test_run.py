from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import UserError
from services.tracking import Run, resume_run, start_run, store


def stored(run: Run) -> Any:
    return store.client(run.uri).get_run(run.id)


@pytest.fixture
def run(tracking_uri: str) -> Run:
    return start_run("e", "idea", {"optim/lr": 0.1, "seed": 3}, {"stage": "train"})


def test_a_run_holds_what_was_logged(run: Run, tmp_path: Path) -> None:
    run.metrics({"train/loss": 2.0}, step=1)
    run.metrics({"train/loss": 1.0}, step=2)
    run.metrics({"test/fa_error": 0.5})
    run.note("# An idea")
    run.text("content", "config/resolved.yaml")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "a.txt").write_text("a")
    run.artifact(tmp_path / "reports", "report")
    run.finish()

    kept = stored(run)
    assert kept.info.status == "FINISHED"
    assert kept.data.params == {"optim/lr": "0.1", "seed": "3"}
    assert kept.data.metrics == {"train/loss": 1.0, "test/fa_error": 0.5}
    assert kept.data.tags["mlflow.note.content"] == "# An idea"
    history = store.client().get_metric_history(run.id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.0)]
    folder = Path(kept.info.artifact_uri.removeprefix("file://"))
    assert (folder / "report" / "a.txt").read_text() == "a"
    assert folder.is_relative_to(tmp_path)  # beside its database, wherever the command ran


def test_a_finished_run_keeps_its_status_and_end_when_more_is_logged(run: Run) -> None:
    run.finish("FAILED")
    before = stored(run).info
    again = resume_run(run.id)
    again.metrics({"test/fa_error": 0.5})
    again.image(np.zeros((8, 8), np.float32), "samples/fa", step=1)
    again.text("x", "x.txt")
    again.tags({"gate": "passed"})
    after = stored(run)
    assert (after.info.status, after.info.end_time) == (before.status, before.end_time)
    assert after.data.metrics["test/fa_error"] == 0.5


def test_a_key_continues_its_run_until_it_is_finished(tracking_uri: str) -> None:
    first = start_run("e", "trial", {"rank": 8}, {}, key="study/1")
    first.metrics({"train/loss": 1.0}, step=1)
    first.finish("KILLED")
    second = start_run("e", "trial", {"rank": 8}, {}, key="study/1")
    other = start_run("e", "trial", {"rank": 8}, {}, key="study/2")
    assert second.id == first.id != other.id
    assert stored(second).info.status == "RUNNING"
    second.finish()
    assert start_run("e", "trial", {"rank": 8}, {}, key="study/1").id != first.id


def test_a_nested_run_names_its_parent_and_a_handle_can_be_sent_to_a_worker(run: Run) -> None:
    child = pickle.loads(pickle.dumps(start_run("e", "trial", {}, {}, parent=run.id)))
    child.metrics({"val/regional_distance": 0.1})
    assert stored(child).data.tags["mlflow.parentRunId"] == run.id
    assert stored(child).data.metrics == {"val/regional_distance": 0.1}


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_run_ends_as_its_work_does(
    run: Run, error: type[BaseException] | None, status: str
) -> None:
    def work() -> None:
        with run:
            if error:
                raise error

    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert stored(run).info.status == status


def test_a_status_given_inside_the_block_stays(run: Run) -> None:
    with run:
        run.finish("FAILED")
    assert stored(run).info.status == "FAILED"


def test_an_outage_of_the_store_costs_neither_work_nor_entries(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.exceptions import MlflowException

    def down(uri: str | None = None) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as outage:
        outage.setattr(store, "client", down)
        for step in range(3):
            run.metrics({"train/loss": float(step)}, step)
    assert capsys.readouterr().err.count("does not answer") == 1
    run.finish()
    history = store.client().get_metric_history(run.id, "train/loss")
    assert [m.value for m in history] == [0.0, 1.0, 2.0]
    assert stored(run).info.status == "FINISHED"


def test_what_the_store_will_never_take_is_left_out_and_said(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.params({"seed": 4})  # MLflow's parameters cannot change
    run.metrics({"train/loss": 1.0})
    assert "is left out" in capsys.readouterr().err
    assert stored(run).data.params["seed"] == "3"
    assert stored(run).data.metrics == {"train/loss": 1.0}


def test_the_last_picture_is_logged_without_step_for_the_views(run: Run) -> None:
    for step, value in ((10, 0.0), (20, 1.0)):
        run.image(np.full((4, 6), value, np.float32), "samples/fa_md", step)
    run.finish()
    names = [item.path for item in store.client().list_artifacts(run.id, "images")]
    final = [name for name in names if name.startswith("images/final~fa_md+step+0")]
    assert final
    from PIL import Image

    folder = Path(stored(run).info.artifact_uri.removeprefix("file://"))
    (png,) = [folder / name for name in final if name.endswith(".png")]
    with Image.open(png) as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.full((4, 6), 255))


def test_an_unknown_run_is_told(tracking_uri: str) -> None:
    with pytest.raises(UserError, match=r"has no run 000.*MLFLOW_TRACKING_URI"):
        resume_run("000")


def test_a_deleted_experiment_is_told(run: Run) -> None:
    client = store.client()
    client.delete_experiment(stored(run).info.experiment_id)
    with pytest.raises(UserError, match="mlflow experiments restore"):
        start_run("e", "idea", {}, {})
