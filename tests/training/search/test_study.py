"""A slot is never lost and never counted twice, however a trial ends."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from contracts.errors import UserError
from tests.training.search.tiny import result, space, study
from training.search import driver as drivers
from training.search.database import shown, url_of
from training.search.driver import Driver, gone
from training.search.records import State
from training.search.settings import SpaceSettings
from training.search.space import Space
from training.search.study import Study

ME = Driver.new().id
GONE = "elsewhere-1-0"


def states(chosen: Study) -> list[State]:
    return [one.state for one in chosen.slots()]


@pytest.fixture
def chosen(tmp_path: Path) -> Study:
    made = study(tmp_path)
    made.fill()
    return made


def test_a_new_study_has_its_slots_and_the_hand_picked_settings_first(chosen: Study) -> None:
    assert states(chosen) == [State.WAITING] * 6
    asked = [chosen.ask(ME) for _ in range(7)]
    assert asked[6] is None
    configs = [one[1] for one in asked[:6] if one is not None]
    assert configs[:4] == space().hand_picked()
    assert states(chosen) == [State.RUNNING] * 6


def test_filling_again_adds_nothing_but_what_is_asked_for_more(
    chosen: Study, tmp_path: Path
) -> None:
    chosen.fill()
    assert len(chosen.slots()) == 6
    more = study(tmp_path, trials=8)
    more.fill()
    assert len(more.slots()) == len(more.records()) == 8


def test_results_failures_and_trials_stopped_early_are_over(chosen: Study) -> None:
    asked = [chosen.ask(ME) for _ in range(3)]
    assert all(asked)
    chosen.tell(0, result(0.7, copy_share=0.6))
    chosen.tell_failed(1, "MemoryError: no room")
    chosen.tell_stopped_early(2, {"held_out_loss": {"10": 0.9}})
    chosen.fill()
    assert states(chosen)[:3] == [State.DONE, State.FAILED, State.STOPPED_EARLY]
    first, second, third = chosen.slots()[:3]
    assert first.result == result(0.7, copy_share=0.6)
    assert second.failure == "MemoryError: no room"
    assert third.result == {"held_out_loss": {"10": 0.9}}
    # The sampler knows that the first one is beyond a limit.
    assert chosen.study.best_trials == []


def test_a_lost_trial_waits_again_with_the_same_settings_and_counts_once(chosen: Study) -> None:
    before = chosen.ask(ME)
    assert before is not None
    chosen.tell_lost(before[0], "killed")
    assert states(chosen) == [State.WAITING] * 6
    assert chosen.records()[0].state is State.LOST
    assert chosen.records()[0].failure == "killed"
    numbers = [chosen.ask(ME) for _ in range(6)]
    again = [one for one in numbers if one is not None and one[1] == before[1]]
    assert len(again) == 1
    chosen.tell(again[0][0], result())
    assert [one.state for one in chosen.slots()].count(State.DONE) == 1


def test_a_slot_that_is_lost_too_often_waits_for_the_next_start(chosen: Study) -> None:
    config = None
    for _ in range(3):
        # The repeats are at the end of the queue: finish what stands before.
        while True:
            asked = chosen.ask(ME)
            assert asked is not None
            if config is None or asked[1] == config:
                break
            chosen.tell(asked[0], result())
        config = asked[1]
        chosen.tell_lost(asked[0], "out of memory")
    assert states(chosen)[0] is State.LOST
    while (asked := chosen.ask(ME)) is not None:
        assert asked[1] != config
        chosen.tell(asked[0], result())
    chosen.fill()
    assert states(chosen)[0] is State.WAITING
    asked = chosen.ask(ME)
    assert asked is not None
    assert asked[1] == config


def test_trials_of_a_driver_that_is_gone_wait_again_and_those_of_others_go_on(
    chosen: Study,
) -> None:
    with Driver(ME).alive(chosen.folder, chosen.beat):
        mine, theirs = chosen.ask(ME), chosen.ask(GONE)
        assert mine is not None
        assert theirs is not None
        chosen.reconcile()
        kept = {one.number: one.state for one in chosen.records()}
        assert kept[mine[0]] is State.RUNNING
        assert kept[theirs[0]] is State.LOST
        assert states(chosen).count(State.WAITING) == 5
    chosen.reconcile()
    assert State.RUNNING not in states(chosen)


def test_a_trial_that_another_driver_has_taken_over_is_not_counted_for_the_first(
    chosen: Study, tmp_path: Path
) -> None:
    asked = [chosen.ask(ME) for _ in range(3)]
    numbers = [one[0] for one in asked if one is not None]
    study(tmp_path).reconcile()
    chosen.tell(numbers[0], result())
    chosen.tell_failed(numbers[1], "no")
    chosen.tell_stopped_early(numbers[2], {})
    assert states(chosen) == [State.WAITING] * 6


@pytest.mark.parametrize("write", ["_enqueue", "tell"])
def test_a_stop_between_two_writes_repeats_a_slot_once(
    chosen: Study, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    chosen.ask(ME)
    owner: Any = chosen if write == "_enqueue" else chosen.study

    def stopped(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(owner, write, stopped)
        with pytest.raises(KeyboardInterrupt):
            chosen.release(ME, "SIGTERM")
    chosen.release(ME, "SIGTERM")
    assert states(chosen) == [State.WAITING] * 6
    assert len(chosen.records()) == 7


def test_what_was_written_before_a_stop_is_the_end_of_a_trial(
    chosen: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    chosen.ask(ME)
    chosen.ask(ME)
    with monkeypatch.context() as patched:
        patched.setattr(chosen.study, "tell", stopped)
        with pytest.raises(KeyboardInterrupt):
            chosen.tell(0, result(0.25))
        with pytest.raises(KeyboardInterrupt):
            chosen.tell_failed(1, "no room")
    chosen.release(ME, "SIGTERM")
    assert states(chosen)[:2] == [State.DONE, State.FAILED]
    assert chosen.slots()[0].result["regional_distance"] == 0.25
    assert len(chosen.records()) == 6


def test_hand_picked_settings_outlive_a_stop_while_they_are_asked_for(
    chosen: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Space, "suggest", stopped)
        with pytest.raises(KeyboardInterrupt):
            chosen.ask(ME)
    chosen.release(ME, "SIGTERM")
    configs = [asked[1] for asked in iter(lambda: chosen.ask(ME), None)]
    assert len(configs) == 6
    for config in space().hand_picked():
        assert config in configs


def test_a_driver_that_stops_lets_go_of_its_own_trials(chosen: Study) -> None:
    chosen.ask(ME)
    chosen.ask(GONE)
    chosen.release(ME, "Ctrl-C")
    assert [one.state for one in chosen.records()[:2]] == [State.LOST, State.RUNNING]
    assert chosen.records()[0].failure == "Ctrl-C"


def test_two_drivers_at_once_never_get_the_same_slot(tmp_path: Path) -> None:
    found: list[tuple[int, Any]] = []
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            mine = study(tmp_path, trials=12)
            mine.fill()
            while (asked := mine.ask(name)) is not None:
                mine.tell(asked[0], result())
                found.append(asked)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a-1-0", "b-1-0")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len({number for number, _ in found}) == len(found) == 12
    assert states(study(tmp_path, trials=12)) == [State.DONE] * 12


def test_two_drivers_propose_as_many_different_trials_as_one(tmp_path: Path) -> None:
    both = [study(tmp_path, trials=24, sampler="random") for _ in range(2)]
    both[0].fill()
    asked = [both[i % 2].ask(ME) for i in range(24)]
    rates = {one[1]["learning_rate"] for one in asked if one and "learning_rate" in one[1]}
    alone = study(tmp_path / "alone", trials=24, sampler="random")
    alone.fill()
    single = [alone.ask(ME) for _ in range(24)]
    assert rates == {o[1]["learning_rate"] for o in single if o and "learning_rate" in o[1]}
    assert len(rates) > 8


def test_a_driver_of_this_host_is_alive_while_it_holds_its_lock(tmp_path: Path) -> None:
    driver = Driver.new()
    assert str(os.getpid()) in driver.id
    assert gone(driver.id, time.time(), tmp_path)
    with driver.alive(tmp_path, lambda _: None):
        assert not gone(driver.id, None, tmp_path)
    assert gone(driver.id, time.time(), tmp_path)
    assert gone("", None, tmp_path)


def test_a_driver_of_another_host_is_alive_while_it_says_so(tmp_path: Path) -> None:
    assert gone(GONE, None, tmp_path)
    assert not gone(GONE, time.time(), tmp_path)
    assert gone(GONE, time.time() - 1000, tmp_path)


def test_a_driver_says_that_it_is_alive_until_it_ends(
    chosen: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "_BEAT_EVERY_S", 0.01)
    beats: list[str] = []

    def beat(driver: Driver) -> None:
        beats.append(driver.id)
        if len(beats) == 2:
            raise OSError("the storage is away for a moment")

    with Driver(GONE).alive(chosen.folder, beat):
        until = time.monotonic() + 5
        while len(beats) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(beats) >= 4
    chosen.ask(GONE)
    chosen.beat(Driver(GONE))
    chosen.reconcile()
    assert chosen.records()[0].state is State.RUNNING


def test_a_storage_that_cannot_be_used_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:////nowhere/study.db")
    with pytest.raises(UserError, match=r"nowhere/study\.db cannot be read or written"):
        study(tmp_path)
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:secret@db:5432/x?password=hidden&a=b")
    assert shown(url_of(tmp_path)) == "postgresql://me:***@db:5432/x?password=***&a=b"
    with pytest.raises(UserError, match="pip install psycopg2") as told:
        study(tmp_path)
    assert "secret" not in str(told.value)
    for wrong in ("nothing", "postgresql://me:secret@db:port/x"):
        monkeypatch.setenv("OPTUNA_STORAGE", wrong)
        with pytest.raises(UserError, match="cannot be read or written") as told:
            study(tmp_path)
        assert "secret" not in str(told.value)


def test_a_full_disk_is_told_and_the_study_goes_on_afterwards(
    chosen: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = chosen.ask(ME)
    assert asked is not None

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(chosen.study, "tell", full)
        with pytest.raises(UserError, match="No space left on device"):
            chosen.tell(asked[0], result())
    chosen.release(ME, "full disk")
    # The result had been written before.
    assert states(chosen) == [State.DONE] + [State.WAITING] * 5


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_each_sampler_proposes_within_the_space(tmp_path: Path, sampler: str) -> None:
    made = study(tmp_path, sampler=sampler, trials=16)
    made.fill()
    while (asked := made.ask(ME)) is not None:
        config = asked[1]
        assert made.space.suggest(optuna.trial.FixedTrial(made.space.params(config))) == config
        made.tell(asked[0], result(len(str(config)) / 100, trainable=asked[0]))
    assert states(made) == [State.DONE] * 16


def test_a_study_that_was_stopped_proposes_what_it_would_have_without(tmp_path: Path) -> None:
    first, second = study(tmp_path / "a", trials=8), study(tmp_path / "b", trials=8)
    for made in (first, second):
        made.fill()
        for _ in range(4):
            asked = made.ask(ME)
            assert asked is not None
            made.tell(asked[0], result())
    continued = study(tmp_path / "b", trials=8)
    proposed = [first.ask(ME) for _ in range(3)]
    assert proposed == [continued.ask(ME) for _ in range(3)]
    assert len({str(one) for one in proposed}) == 3


def test_settings_that_were_tried_are_not_tried_again(tmp_path: Path) -> None:
    """Of the methods `none` and `lora` without a shift and with it, there are few."""
    given = SpaceSettings(methods={"none": {}, "lora": {}}, steps=(20,), mean_shift=(True, False))
    made = study(tmp_path, trials=20, space=given)
    made.fill()
    configs = []
    while (asked := made.ask(ME)) is not None:
        configs.append(asked[1])
        # The sampler is drawn to the method that has only two settings.
        made.tell(asked[0], result(0.1 if asked[1]["method"] == "none" else 0.9))
    assert len(configs) == 20
    assert [c for i, c in enumerate(configs) if c in configs[:i]] == []
    assert states(made) == [State.DONE] * 20
