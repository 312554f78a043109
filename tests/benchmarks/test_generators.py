"""The comparison on small volumes: it trains, samples, judges, and goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks import contest, generators, result
from benchmarks.contestants import Contestant, contestants
from benchmarks.costs import interleaved, ratio
from benchmarks.recipes.budget import Budget
from benchmarks.result import interval, of_rounds
from benchmarks.scores import Judge, ratios
from benchmarks.table_definitions import CONTEST, RATIOS, TABLES, markdown
from cohort.subjects import Subjects
from contracts.condition import Condition
from contracts.maps import FA, MD
from tests.evaluation.people import LABELS, REGIONS, SPACE, people

MAPS = (FA, MD)
PARAMS = """
train:
  3d:
    network: {channels: [16, 16], res_blocks: 1, attention: false}
    diffusion: {path: flow}
    loop: {steps: 1, batch: 2, learning_rate: 0.001}
"""


def _subjects(n: int, seed: int) -> Subjects:
    cohort = people(n, seed)
    key = hashlib.sha256(cohort.volumes.tobytes()).hexdigest()[:16]
    masks = cohort.volumes[:, 1] > 0
    return Subjects(
        tuple(cohort.ids), MAPS, cohort.volumes, masks, tuple(cohort.conditions), SPACE, key
    )


@pytest.fixture
def known(tmp_path: Path) -> dict[str, Contestant]:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS)
    return contestants(params=path)


def test_ours_and_the_gaussian_are_compared(
    known: dict[str, Contestant], tmp_path: Path, one_thread: None
) -> None:
    train, test = _subjects(24, 1), _subjects(16, 2)
    conditions = list(test.conditions)[:8]

    def run(name: str) -> list[dict[str, Any]]:
        evaluations = (4, 2) if known[name].own else (3,)
        return contest.run(
            name, known[name], train, conditions, 2.0, 0, evaluations, tmp_path / name
        )

    rows = [*run("ours-3d"), *run("gaussian")]
    assert [r["evaluations"] for r in rows] == [4, 2, 0, 0]
    assert all(r["steps"] > 0 for r in rows[:3])
    judge = Judge.of(people(24, 1), people(16, 2), SPACE, MAPS, (LABELS, REGIONS))
    results = []
    for row in (rows[0], rows[-1]):
        volumes = np.load(row["volumes"])
        assert volumes.shape == (8, 2, *SPACE.shape)
        assert np.isfinite(volumes).all()
        scores = judge.scores(row["name"], volumes, conditions)
        json.dumps(scores)
        results.append({**row, "scores": scores})
    lines = markdown(CONTEST, results).splitlines()
    assert len(lines) == 2 + len(results)
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert not [line for line in lines if "|  |" in line], "a cell without a number"
    found = ratios(results)
    assert [(r["first"], r["second"]) for r in found] == [("ours-3d at 4 evaluations", "gaussian")]
    assert "ours-3d at 4 evaluations" in markdown(RATIOS, found)

    # Stopped and started again, nothing is trained twice.
    record = (tmp_path / "ours-3d" / "rows.json").stat().st_mtime_ns
    assert run("ours-3d") == rows[:3]
    assert (tmp_path / "ours-3d" / "rows.json").stat().st_mtime_ns == record


def test_equal_seeds_and_steps_give_equal_generators(
    known: dict[str, Contestant], tmp_path: Path, one_thread: None
) -> None:
    train = _subjects(12, 3)
    made = [
        known["ours-3d"].train(train, Budget(steps=3), seed, tmp_path / "w") for seed in (0, 0, 1)
    ]
    assert made[0].digest == made[1].digest != made[2].digest
    person = [Condition(40.0, "F")]
    first, again, _ = (t.sample(person, [1], 4) for t in made)
    assert np.array_equal(first, again)


def test_one_network_is_sampled_in_several_ways(tmp_path: Path, one_thread: None) -> None:
    person = [Condition(40.0, "F")]
    # Fast learning: after three steps the network has to differ by more than rounding.
    fast = tmp_path / "fast.yaml"
    fast.write_text(
        PARAMS.replace("learning_rate: 0.001", "learning_rate: 0.01, warmup: 1, ema: 0.0")
    )
    known = contestants(params=fast)
    guided = known["ours-3d-guided"].train(_subjects(12, 3), Budget(steps=3), 0, tmp_path)
    assert {name: count for name, (_, count) in guided.others.items()} == {
        "without the network": 0, "guidance 2": 16, "guidance 3": 16,
    }  # fmt: skip
    plain, closed, twice, thrice = (
        sample(person, [1], 8)
        for sample in (guided.sample, *(s for s, _ in guided.others.values()))
    )
    assert np.abs(plain - closed).max() > 1e-5
    # Along the step that guidance takes; all else is the same.
    moved, more = (twice - plain).ravel(), (thrice - plain).ravel()
    assert np.abs(moved).max() > 1e-5
    assert np.linalg.norm(moved) < np.linalg.norm(more)
    assert np.corrcoef(moved, more)[0, 1] > 0.9
    for name, counts in (("ours-3d-ancestral", {0, 1000}), ("ours-3d-ddpm", {1000})):
        trained = known[name].train(_subjects(12, 3), Budget(steps=1), 0, tmp_path)
        assert {n for _, n in trained.others.values()} == counts
        assert np.isfinite(trained.sample(person, [1], 4)).all()


def test_real_people_score_near_zero_and_are_coherent() -> None:
    judge = Judge.of(people(24, 1), people(16, 2), SPACE, MAPS, (LABELS, REGIONS))
    new = people(16, 5)
    scores = judge.scores("real", new.volumes, new.conditions)
    for name in ("kernel_distance", "spectrum_error"):
        assert scores[name]["low"] <= 0 <= scores[name]["high"]
    assert scores["coherent_parts"] == "6 of 6"
    shuffled = new.volumes[:, :, :, :, np.random.default_rng(0).permutation(SPACE.shape[2])]
    assert judge.scores("shuffled", shuffled, new.conditions)["coherent_parts"] < "6 of 6"


def test_ratios_go_training_by_training_and_not_over_zero() -> None:
    def row(name: str, seed: int, value: float) -> dict[str, Any]:
        scores = {"kernel_distance": {"value": value}}
        own = name.startswith("ours")
        return {"name": name, "own": own, "seed": seed, "evaluations": 4, "scores": scores}

    rows = [row("ours-2d", 0, 1.0), row("ours-2d", 1, 3.0), row("peer", 0, 2.0)]
    fewer = {**row("ours-2d", 0, 4.0), "evaluations": 2}
    found = {
        (r["first"], r["second"]): (r["ratio"], r["trainings"])
        for r in ratios([*rows, row("peer", 1, 2.0), row("lucky", 0, -1.0), fewer])
    }
    ours = "ours-2d at 4 evaluations"
    assert found["ours-2d at 2 evaluations", ours] == (interval(4.0, 4.0, 4.0), 1)
    assert found[ours, "peer at 4 evaluations"] == (interval(1.0, 0.5, 1.5), 2)
    assert found[ours, "lucky at 4 evaluations"] == (None, 0)


def test_rounds_are_interleaved_and_their_ratios_known() -> None:
    order: list[str] = []

    def saying(name: str, value: float) -> float:
        order.append(name)
        return value

    found = interleaved({"a": lambda: saying("a", 2.0), "b": lambda: saying("b", 1.0)}, 3)
    assert order == ["a", "b"] * 4
    assert ratio(found["a"], found["b"]) == interval(2.0, 2.0, 2.0)
    assert of_rounds([1.0, 3.0, 2.5]) == interval(2.5, 1.0, 3.0)


def test_a_comparison_is_written_with_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    parts = {"train": _subjects(24, 1), "val": _subjects(8, 4), "test": _subjects(16, 2)}
    monkeypatch.setattr(contest.Source, "load", lambda self, part: parts[part])
    monkeypatch.setattr(contest.Source, "atlas", lambda self: (LABELS, REGIONS))
    monkeypatch.setattr(result, "RESULTS", tmp_path / "results")
    arguments = ["gaussian", "--samples", "8", "--repeats", "2", "--name", "generators-guidance"]
    work = ["--work", str(tmp_path / "work")]
    done = CliRunner().invoke(generators.main, arguments + work, catch_exceptions=False)
    assert done.exit_code == 0
    found = result.read("generators-guidance")
    assert found is not None
    assert found.seeds == [0, 1]
    assert found.n == {
        "volumes each": 8, "training subjects": 24, "test subjects": 16, "validation subjects": 8,
    }  # fmt: skip
    assert [row["name"] for row in found.rows] == ["real (val)", "gaussian", "gaussian"]
    shown = TABLES["generators-guidance"].body(found)
    assert shown.count("\n") == 4
    assert shown.splitlines()[2].startswith("| real (val) |")
    assert "evaluations" in shown


def test_an_unknown_contestant_is_told() -> None:
    result = CliRunner().invoke(generators.main, ["nobody"])
    assert result.exit_code == 2
    assert "nobody" in result.output
    assert "monai-ldm-3d" in result.output
