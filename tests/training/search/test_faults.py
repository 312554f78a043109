"""Whatever ends on a cluster of two nodes, every trial is accounted for once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from contracts.errors import UserError
from services.compute.cluster import cluster
from tests.training.search import tiny
from training.search.driver import Driver
from training.search.records import State
from training.search.schedule import run_trials
from training.search.settings import SpaceSettings
from training.search.study import Study

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).parents[3]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two nodes of one CPU each; the head has none."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # workers import the stand-ins
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def run(study: Study, inner: Any, shared: Any = None, **changed: Any) -> list[tuple[int, Any]]:
    """Runs what waits; returns each report."""
    study.fill()
    told: list[tuple[int, Any]] = []
    driver = Driver.new()
    with cluster(), driver.alive(study.folder, study.beat):
        run_trials(
            study,
            driver,
            shared,
            tiny.settings(**changed),
            lambda number, report: told.append((number, report)),
            inner,
        )
    return told


def accounted(study: Study) -> Counter[State]:
    """States of the slots; each has ended at most once."""
    over = (State.DONE, State.FAILED, State.STOPPED_EARLY)
    ended = Counter(one.slot for one in study.records() if one.state in over)
    assert set(ended.values()) <= {1}
    assert len(study.slots()) == study.settings.trials
    return Counter(one.state for one in study.slots())


def test_a_trial_that_raises_or_ends_in_no_number_fails_and_the_others_go_on(
    nodes: Cluster, tmp_path: Path
) -> None:
    study = tiny.study(tmp_path)
    told = run(study, tiny.inner)
    counts = accounted(study)
    assert counts[State.FAILED] >= 1
    assert counts[State.FAILED] + counts[State.DONE] == 6
    for one in study.slots():
        if one.config["method"] == "full":
            assert one.failure == "MemoryError: no room for all weights"
        else:
            assert one.result["regional_distance"] == pytest.approx(tiny.distance(one.config))
            kept = (study.folder / "trials" / str(one.number) / "adapter.safetensors").read_bytes()
            assert len(kept) == one.config["settings"].get("rank", 0)
            steps = [r["step"] for number, r in told if number == one.number and "step" in r]
            assert steps == ([] if one.config["method"] == "none" else [0, 5])
    more = tiny.study(tmp_path, trials=7)
    run(more, tiny.nan)
    (last,) = [one for one in more.slots() if one.slot == 6]
    assert last.state is State.FAILED
    assert "regional_distance is nan" in last.failure
    assert accounted(more)[State.DONE] == counts[State.DONE]


def test_a_worker_that_is_killed_costs_only_time(nodes: Cluster, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    study = tiny.study(tmp_path / "study")
    run(study, tiny.killed_once, str(tmp_path / "marks"))
    assert accounted(study) == {State.DONE: 6}
    states = Counter(one.state for one in study.records())
    assert states[State.LOST] >= 4
    assert len(study.records()) == 6 + states[State.LOST]


def test_a_worker_that_is_always_killed_does_not_hold_the_study_and_is_repeated_later(
    nodes: Cluster, tmp_path: Path
) -> None:
    cause = tmp_path / "mended"
    study = tiny.study(tmp_path / "study", trials=2)
    run(study, tiny.always_killed, str(cause))
    assert accounted(study) == {State.LOST: 2}
    assert len(study.records()) == 6
    cause.touch()
    again = tiny.study(tmp_path / "study", trials=2)
    run(again, tiny.always_killed, str(cause))
    assert accounted(again) == {State.DONE: 2}


def test_a_node_that_is_lost_costs_only_time(nodes: Cluster, tmp_path: Path) -> None:
    study = tiny.study(tmp_path)
    study.fill()
    lost = {"done": False}

    def changed(number: int, report: Any) -> None:
        running = [one for one in study.records() if one.state is State.RUNNING]
        if not lost["done"] and len(running) > 1:
            lost["done"] = True
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    shared: Any = 4.0
    driver = Driver.new()
    with cluster(), driver.alive(study.folder, study.beat):
        run_trials(study, driver, shared, tiny.settings(), changed, tiny.slow)
    assert lost["done"]
    assert accounted(study) == {State.DONE: 6}
    assert any(one.state is State.LOST for one in study.records())


def test_trials_that_learn_less_are_stopped_early_and_are_over(
    nodes: Cluster, tmp_path: Path
) -> None:
    given = SpaceSettings(methods={"lora": {"rank": [4]}, "none": {}}, steps=(10, 20))
    changed: dict[str, Any] = {"space": given, "objectives": ("regional_distance",)}
    changed |= {"stop_early": True, "trials": 10}
    study = tiny.study(tmp_path, **changed)
    run(study, tiny.learning, **changed)
    counts = accounted(study)
    assert set(counts) == {State.DONE, State.STOPPED_EARLY}
    stopped = [one for one in study.slots() if one.state is State.STOPPED_EARLY]
    rates = [one.config.get("learning_rate", 0) for one in study.slots()]
    assert max(rates) not in [one.config["learning_rate"] for one in stopped]
    assert stopped
    for one in stopped:
        steps = [int(step) for step in one.result["held_out_loss"]]
        assert steps == list(range(max(steps) + 1))
        assert max(steps) < one.config["steps"]
    kinds = {one.config["method"] for one in study.slots() if one.state is State.DONE}
    assert kinds == {"lora", "none"}


def test_an_error_of_the_study_is_told_as_it_is_and_the_study_goes_on(
    nodes: Cluster, tmp_path: Path
) -> None:
    study = tiny.study(tmp_path)
    study.fill()

    def changed(number: int, report: Any) -> None:
        raise UserError("No space left on device")

    shared: Any = None
    driver = Driver.new()
    with cluster(), pytest.raises(UserError, match=r"^No space left on device$"):
        run_trials(study, driver, shared, tiny.settings(), changed, tiny.inner)
    ray.shutdown()
    study.release(driver.id, "an error")
    run(study, tiny.inner)
    counts = accounted(study)
    assert counts[State.DONE] + counts[State.FAILED] == 6


_DRIVER = """
import sys
from pathlib import Path
from contracts.errors import UserError
from services.compute.cluster import cluster
from tests.training.search import tiny
from training.search.driver import Driver, interruptible
from training.search.schedule import run_trials

study = tiny.study(Path(sys.argv[1]), trials=int(sys.argv[2]))
study.fill()
driver = Driver.new()
with cluster(cpus=2):
    try:
        with interruptible(), driver.alive(study.folder, study.beat):
            run_trials(study, driver, 1.0, tiny.settings(trials=int(sys.argv[2])),
                       lambda number, report: print("report", number, flush=True), tiny.slow)
    except KeyboardInterrupt:
        study.release(driver.id, "the driver was stopped")
        sys.exit(3)
print("over", flush=True)
"""


def started(folder: Path, trials: int = 6) -> subprocess.Popen[str]:
    """A driver in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(folder), str(trials)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_driver_that_is_stopped_goes_on_with_the_same_command(
    tmp_path: Path, how: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with started(tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("report")
        time.sleep(0.3)
        first.send_signal(how)
        assert first.wait(timeout=60) == (3 if how == signal.SIGTERM else -how)
    study = tiny.study(tmp_path)
    if how == signal.SIGTERM:
        assert State.RUNNING not in accounted(study)
    with started(tmp_path) as second:
        assert second.communicate(timeout=120)[0].splitlines()[-1] == "over"
    assert second.returncode == 0
    assert accounted(study) == {State.DONE: 6}
    assert any(one.state is State.LOST for one in study.records())


def test_two_drivers_at_once_share_the_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    both = [started(tmp_path, trials=12) for _ in range(2)]
    for one in both:
        assert one.communicate(timeout=180)[0].splitlines()[-1] == "over"
    study = tiny.study(tmp_path, trials=12)
    assert accounted(study) == {State.DONE: 12}
    done = [one for one in study.records() if one.state is State.DONE]
    assert len(done) == 12
    assert len({one.driver for one in done}) == 2
