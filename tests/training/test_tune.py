from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UserError
from services.compute.cluster import cluster
from services.tracking import Run, start_run, store
from training import study, tune
from training.adapt import AdaptResult
from training.objective import OBJECTIVE, PENALTY, Job, run_trial
from training.settings import AdaptSettings, HeldOutSettings
from training.study import Choices, Effort, search
from training.trial import Config, Trial, TrialFolder, key_of, rounded
from training.verdict import importances, judge, table

CHOICES = Choices(
    rank=(2, 8),
    learning_rate=(1e-4, 1e-1),
    steps=(10, 20),
    blocks=("*attention*", "*"),
    site_gain=(True,),
)
DEFAULT: Config = {
    "rank": 8,
    "learning_rate": 0.003,
    "steps": 20,
    "blocks": "*",
    "site_gain": True,
}


def distance(config: Config) -> float:
    """Known answer of the inner loop: least at a learning rate of 0.01, whatever the rest."""
    return (math.log10(config["learning_rate"]) + 2) ** 2


def fake_inner(config: Config, out: Path, job: Job, run: Run) -> AdaptResult:
    if config["blocks"] == "*attention*":
        raise MemoryError("no room for attention")
    run.metrics({"train/loss": 1.0}, step=10)
    (out / "adapter.safetensors").write_bytes(b"x" * config["rank"])
    return AdaptResult(
        val_regional_distance=distance(config),
        copy_share=0.0,
        trainable=config["rank"],
        trainable_share=config["rank"] / 100,
        adapter_bytes=config["rank"],
        seconds=0.0,
        final_loss=1.0,
    )


def nan_inner(config: Config, out: Path, job: Job, run: Run) -> AdaptResult:
    return replace(fake_inner(config, out, job, run), val_regional_distance=math.nan)


@pytest.fixture
def job(tmp_path: Path, tracking_uri: str) -> Job:
    parent = start_run("e", "sweep", {}, {"stage": "sweep"})
    trials = tmp_path / "study" / "trials"
    trials.mkdir(parents=True)
    return Job(
        base=tmp_path,
        derivatives=tmp_path,
        split=tmp_path,
        trials=trials,
        adapt=AdaptSettings(),
        held_out=HeldOutSettings(),
        threads=1,
        experiment="e",
        parent=parent.id,
        tracking_uri=tracking_uri,
        tags={"dim": "2d"},
    )


def trial(number: int, value: float, copies: float = 0.0, **config: Any) -> Trial:
    chosen = {**DEFAULT, "rank": 2, "learning_rate": 10.0**-number, **config}
    return Trial(
        key=key_of(chosen),
        config=chosen,
        started=number,
        seconds=1.0,
        run_id=f"run{number}",
        val_regional_distance=value,
        copy_share=copies,
        trainable=100,
        trainable_share=0.01,
        adapter_bytes=2048,
    )


def test_a_stopped_study_goes_on_with_what_it_had(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that was cut off is begun again; nothing that is finished runs twice."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # workers import `fake_inner`
    cut_off = {**DEFAULT, "learning_rate": 0.05}
    effort = Effort(trials=4, concurrent=2, cpus=1, gpus=0, seed=0)
    with cluster(cpus=2) as joined:
        joined.require(cpus=1, gpus=0)
        with pytest.raises(UserError, match="99 CPUs"):
            joined.require(cpus=99, gpus=0)
        before = search(job, fake_inner, CHOICES, DEFAULT, effort)
        assert len(before) == 4
        assert key_of(DEFAULT) in {one.key for one in before}

        TrialFolder(job.trials).begin(cut_off)
        more = replace(effort, trials=6, concurrent=1)
        after = search(job, fake_inner, CHOICES, DEFAULT, more)

    assert after[:4] == before
    assert len(after) == 6
    assert key_of(cut_off) in {one.key for one in after[4:]}
    for one in after:
        if one.config["blocks"] == "*attention*":
            assert "no room for attention" in str(one.failure)
        else:
            assert one.val_regional_distance == pytest.approx(distance(one.config))

    client = store.client()
    runs = client.search_runs(
        [client.get_experiment_by_name("e").experiment_id], "tags.stage = 'trial'"
    )
    assert len(runs) == 6
    assert {run.data.tags["mlflow.parentRunId"] for run in runs} == {job.parent}
    ended = {run.info.run_id: run.info.status for run in runs}
    assert ended == {one.run_id: "FAILED" if one.failed else "FINISHED" for one in after}


def test_the_first_proposals_are_the_hand_picked_and_the_cut_off_settings(job: Job) -> None:
    cut_off = {**DEFAULT, "learning_rate": 0.05}
    folder = TrialFolder(job.trials)
    folder.begin(cut_off)
    effort = Effort(trials=6, concurrent=1, cpus=1, gpus=0, seed=0)
    searcher = study.searcher(job, CHOICES, study.first(folder, DEFAULT), effort)
    assert [searcher.suggest("a"), searcher.suggest("b")] == [DEFAULT, cut_off]
    assert searcher.suggest("c") not in (DEFAULT, cut_off)

    folder.end(replace(trial(1, 0.1), key=key_of(DEFAULT), config=DEFAULT))
    assert study.first(folder, DEFAULT) == [cut_off]


@pytest.mark.parametrize("inner", [fake_inner, nan_inner])
def test_a_failing_trial_reports_a_finite_penalty(job: Job, inner: Any) -> None:
    config = {**DEFAULT, "blocks": "*attention*" if inner is fake_inner else "*"}
    assert run_trial(config, job, inner) == {OBJECTIVE: PENALTY}
    (record,) = TrialFolder(job.trials).finished()
    assert record.failed
    assert store.client().get_run(record.run_id).info.status == "FAILED"


def test_a_trial_that_is_known_is_not_run_again(job: Job) -> None:
    def never(config: Config, out: Path, job: Job, run: Run) -> AdaptResult:
        raise AssertionError("ran again")

    first = run_trial(DEFAULT, job, fake_inner)
    assert run_trial(DEFAULT, job, never) == first == {OBJECTIVE: pytest.approx(distance(DEFAULT))}


def test_a_trial_is_a_file_and_back(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path)
    good, bad = trial(1, -0.001), Trial("k", {}, 2.0, 3.0, "r", failure="Error: no")
    folder.begin({"rank": 1})
    for one in (good, bad):
        folder.end(one)
    (tmp_path / good.key / "result.json.partial").write_text("{")
    read = folder.finished()
    assert read[0] == good
    assert read[1].failure == "Error: no"
    assert math.isnan(read[1].copy_share)
    assert folder.interrupted() == [{"rank": 1}]


def test_the_hand_picked_settings_must_be_among_the_choices(job: Job) -> None:
    with pytest.raises(UserError, match=r"tune\.choices\.rank .* leaves out 3"):
        search(job, fake_inner, CHOICES, {**DEFAULT, "rank": 3}, Effort(1, 1, 1, 0, 0))


def test_the_nearest_trial_within_the_bound_wins() -> None:
    default = trial(3, 0.30)
    trials = [
        trial(1, 0.10, copies=0.5),
        trial(2, 0.20),
        default,
        Trial("k", DEFAULT, 4, 1, "r", "no"),
    ]
    verdict = judge(trials, default.key, bound=0.1)
    assert verdict.best is trials[1]
    assert [one.val_regional_distance for one in verdict.ranking] == [0.10, 0.20, 0.30]
    why = " ".join(verdict.why)
    assert "number 2 of 3" in why
    assert "1 came nearer, but copied" in why
    assert "0.1000 ahead of the hand-picked settings" in why
    assert "3 trials are too few" in why
    lines = table(verdict, default.key).splitlines()
    assert lines[2].startswith("best")
    assert lines[3].startswith("by hand")
    assert "failed" in lines[4]


def test_nothing_is_chosen_when_every_trial_copies() -> None:
    verdict = judge([trial(1, 0.1, copies=0.9)], "none", bound=0.1)
    assert verdict.best is None
    assert "the least is 0.90" in verdict.why[0]


def test_hand_picked_settings_may_win() -> None:
    default = trial(1, 0.1)
    verdict = judge([default, trial(2, 0.2)], default.key, bound=0.1)
    assert verdict.best is default
    assert "no other trial beat them" in " ".join(verdict.why)


def test_importance_finds_the_setting_that_matters_and_needs_enough_trials() -> None:
    configs = [
        {**DEFAULT, "rank": 2 + 6 * (i % 2), "steps": 10 + 10 * (i // 2 % 2), "learning_rate": lr}
        for i, lr in enumerate(0.0001 * 1.4**k for k in range(20))
    ]
    trials = [replace(trial(1, distance(c), **c)) for c in configs]
    shares = importances(trials, CHOICES.distributions())
    assert shares is not None
    assert max(shares, key=lambda name: shares[name]) == "learning_rate"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert importances(trials[:9], CHOICES.distributions()) is None


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
  3d:
    settings: {rank: 8}

train:
  batch: [1, 2]  # kept
"""


def test_apply_changes_the_adapt_settings_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = Path("params.yaml")
    params.write_text(PARAMS)
    best = rounded({**DEFAULT, "rank": 2, "learning_rate": 0.00123456, "blocks": "up.*"})
    tune.REPORT.parent.mkdir(parents=True)
    tune.REPORT.write_text(json.dumps({"dim": "2d", "settings": best, "why": []}))
    tune.apply()

    before, after = PARAMS.splitlines(), params.read_text().splitlines()
    changed = [line for line in after if line not in before]
    assert [line.split("#")[0].strip() for line in changed] == [
        "rank: 2",
        'blocks: ["up.*"]',
        "learning_rate: 0.00123",
        "steps: 20",
        "site_gain: true",
    ]
    assert "# of the update" in changed[0]
    assert [line for line in before if line not in after] == [
        "      rank: 8            # of the update",
        '    blocks: ["*"]',
        "    learning_rate: 3e-3",
    ]
    from contracts.params import load

    changed_settings = load(AdaptSettings, "adapt.2d")
    assert changed_settings.settings == {"rank": 2}
    assert changed_settings.blocks == ("up.*",)


def test_apply_without_a_winner_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"python -m training\.tune"):
        tune.apply()
    tune.REPORT.parent.mkdir(parents=True)
    tune.REPORT.write_text(json.dumps({"dim": "2d", "settings": None, "why": ["All copied."]}))
    with pytest.raises(UserError, match="All copied"):
        tune.apply()


def test_an_unreachable_cluster_is_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    began = time.monotonic()
    with pytest.raises(UserError, match="RAY_ADDRESS"), cluster():
        pass
    assert time.monotonic() - began < 10


def test_command_lines_load_nothing_heavy() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, registry.register, training.tune, services.tracking.__main__; "
            "print(sorted({'torch', 'mlflow', 'ray', 'optuna', 'numpy'} & set(sys.modules)))",
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]"
