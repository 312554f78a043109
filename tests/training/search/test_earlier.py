"""A new study can know the trials of earlier ones, and counts none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UserError
from tests.training.search.tiny import SPACE, result, settings, space, study
from training.search.database import url_of
from training.search.driver import Driver
from training.search.earlier import SCORED_BY, learn
from training.search.settings import SpaceSettings
from training.search.study import Study

ME = Driver.new().id


def named(folder: Path, name: str, **changed: Any) -> Study:
    return study(folder / name, name, **changed)


@pytest.fixture
def earlier(tmp_path: Path) -> Study:
    """A study of three trials, one of them beyond a limit, and one that waits."""
    made = named(tmp_path, "earlier", trials=4)
    made.remembered(SCORED_BY, "alike")
    made.fill()
    for i in range(3):
        asked = made.ask(ME)
        assert asked is not None
        made.tell(asked[0], result(0.5 + i, copy_share=0.9 * (i == 2)))
    return made


def test_the_sampler_knows_earlier_trials_and_they_are_no_slots(
    earlier: Study, tmp_path: Path
) -> None:
    made = named(tmp_path, "new")
    assert learn(made, ("earlier",), tmp_path, "alike") == 3
    known = made.study.get_trials()
    assert [trial.values for trial in known] == [[0.5, 100.0], [1.5, 100.0], [2.5, 100.0]]
    assert [trial.constraints["copy_share"] > 0 for trial in known] == [False, False, True]
    assert [trial.params for trial in known] == [r.params for r in earlier.records()[:3]]
    assert made.records() == []
    made.fill()
    assert len(made.slots()) == 6
    assert learn(named(tmp_path, "new"), ("earlier",), tmp_path, "alike") == 0
    assert len(made.study.get_trials()) == 9


def test_a_stop_before_the_slots_are_made_adds_nothing_twice(
    earlier: Study, tmp_path: Path
) -> None:
    made = named(tmp_path, "new")
    assert learn(made, ("earlier",), tmp_path, "alike") == 3
    assert learn(made, ("earlier",), tmp_path, "alike") == 0
    assert len(made.study.get_trials()) == 3


def test_trials_outside_the_new_choices_are_left_out(earlier: Study, tmp_path: Path) -> None:
    given = SpaceSettings(methods={"lora": {"rank": [4]}}, steps=SPACE.steps)
    made = Study(
        url_of(tmp_path / "new"), "new", tmp_path / "new", settings(space=given), space(given)
    )
    assert learn(made, ("earlier",), tmp_path, "alike") == 1
    assert made.study.get_trials()[0].params["method"] == "lora"


def test_studies_that_cannot_be_compared_are_told(earlier: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be compared"):
        learn(named(tmp_path, "new"), ("earlier",), tmp_path, "otherwise")
    with pytest.raises(UserError, match="no study none in"):
        learn(named(tmp_path, "other"), ("none",), tmp_path, "alike")
