"""Adopting a trial changes what differs in params.yaml, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from contracts.params import load
from training.search.__main__ import main
from training.search.adopt import adopt
from training.settings import AdaptSettings

PARAMS = """\
# Everything that shapes a result.
adapt:
  held_out: {samples: 24, steps: 8}  # scoring
  2d:
    method: lora
    settings:
      rank: 8            # of the update
    blocks: ["*"]
    learning_rate: 3e-3
    seed: 0
  3d: {method: lora, settings: {rank: 8}, steps: 120}  # one line

train:
  batch: [1, 2]  # kept
"""


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("params.yaml")
    path.write_text(PARAMS)
    return path


def test_it_changes_the_settings_of_one_section_and_keeps_comments(params: Path) -> None:
    wanted = replace(
        load(AdaptSettings, "adapt.2d"),
        settings={"rank": 2},
        blocks=("up.0", "out"),
        learning_rate=0.00123,
        ema=0.9,
    )
    adopt("2d", wanted)
    assert load(AdaptSettings, "adapt.2d") == wanted
    before, after = PARAMS.splitlines(), params.read_text().splitlines()
    changed = [line for line in after if line not in before]
    assert [line.split("#")[0].strip() for line in changed] == [
        "rank: 2",
        'blocks: ["*"]'.replace('"*"', "up.0, out"),
        "learning_rate: 0.00123",
        "ema: 0.9",
    ]
    assert "# of the update" in changed[0]


def test_another_method_takes_its_own_settings(params: Path) -> None:
    wanted = replace(load(AdaptSettings, "adapt.3d"), method="svdiff", settings={}, steps=60)
    adopt("3d", wanted)
    assert load(AdaptSettings, "adapt.3d") == wanted
    assert "# one line" in params.read_text()


def test_what_is_there_already_is_not_written(params: Path) -> None:
    before = params.stat().st_mtime_ns
    adopt("3d", load(AdaptSettings, "adapt.3d"))
    assert params.stat().st_mtime_ns == before
    assert params.read_text() == PARAMS


def written(chosen: int | None) -> None:
    adapt: dict[str, Any] = asdict(AdaptSettings(settings={"rank": 2}, steps=60))
    trials = [{"number": 7, "adapt": adapt}, {"number": 8, "adapt": None}]
    folder = Path("data/reports/search")
    folder.mkdir(parents=True)
    content = {"dim": "3d", "chosen": chosen, "said": ["All copied."], "trials": trials}
    (folder / "study.json").write_text(json.dumps(content))


@pytest.mark.parametrize("arguments", [["adopt"], ["adopt", "--trial", "7"]])
def test_the_command_adopts_the_chosen_trial_or_another(params: Path, arguments: list[str]) -> None:
    written(7)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "adapt.3d: steps: 120 -> 60" in done.output
    assert load(AdaptSettings, "adapt.3d").settings == {"rank": 2}


def test_the_command_says_what_lacks(params: Path) -> None:
    assert "search first: make tune" in CliRunner().invoke(main, ["adopt"]).output
    written(None)
    assert "All copied" in CliRunner().invoke(main, ["adopt"]).output
    other = CliRunner().invoke(main, ["adopt", "--trial", "8"])
    assert "no trial 8: expected one of 7" in other.output
    assert other.exit_code == 2
    assert "is not one of" in CliRunner().invoke(main, ["--sampler", "grid"]).output
