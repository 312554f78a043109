"""The rule that chooses a trial, and the intervals that it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from evaluation.regional_means import distance_of_means
from tests.training.search.tiny import result, settings, study
from training.search import analysis, page
from training.search import choice as choosing
from training.search.finalists import Rescored, _interval
from training.search.records import Record, State


def record(number: int, distance: float, state: State = State.DONE, **changed: Any) -> Record:
    config = {"method": "lora", "settings": {"rank": number}, "learning_rate": 0.01, "steps": 10}
    config |= {"ema": 0.99, "site_gain": True, "mean_shift": True}
    kept = result(distance, **changed) if state is State.DONE else {}
    return Record(number, number, state, config, kept, "", "", 0.0, float(number + 1))


def scores(*values: float, noise: float = 0.0) -> Rescored:
    """Seeds with these distances; leaving out one of four people changes them by `noise`."""
    return Rescored(np.array(values), np.mean(values) + noise * np.array([1.0, -1.0, 1.0, -1.0]))


def test_the_interval_adds_the_spread_over_seeds_and_the_jackknife_over_people() -> None:
    seeds, without = np.array([1.0, 2.0, 3.0]), np.array([2.1, 1.9, 2.1, 1.9])
    found = _interval(seeds, without)
    first, second = 1.0 / 3, 3 / 4 * 4 * 0.01
    freedom = (first + second) ** 2 / (first**2 / 2 + second**2 / 3)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(first + second)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - reach, 2 + reach))
    assert not found.without_zero


def test_the_interval_of_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    """The mean of people alone: the jackknife's variance is that of the mean, exactly."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        people = rng.normal(size=9)
        without = (people.sum() - people) / 8
        found = _interval(np.full(9, people.mean()), without)
        inside += found.low <= 0 <= found.high
    assert 0.92 < inside / 400 < 0.98


def test_paired_differences_are_less_noisy_than_scores() -> None:
    rng = np.random.default_rng(1)
    people = rng.normal(size=(9, 2, 3))
    noise = rng.normal(size=(6, 16, 2, 3))
    first, second = Rescored.of(noise + 0.3, people), Rescored.of(noise + 0.5, people)
    assert first.by_seed[2] == pytest.approx(distance_of_means(noise[2] + 0.3, people))
    # The samples at the age of the person who is left out: of 16 beside 9, numbers 4 and 13.
    others = np.delete(people, 4, axis=0)
    without = [distance_of_means(np.delete(one, (4, 13), axis=0) + 0.3, others) for one in noise]
    assert first.without[4] == pytest.approx(np.mean(without))
    gap = first.less(second)
    assert gap.high - gap.low < first.interval.high - first.interval.low
    assert gap.mean == pytest.approx(first.interval.mean - second.interval.mean)
    assert first.less(first).mean == first.less(first).high == 0


def test_an_effect_of_age_that_samples_follow_is_not_taken_for_noise() -> None:
    """Of many cohorts, the interval's spread is that of the score, whatever age does."""
    rng = np.random.default_rng(2)
    for age_effect in (0.0, 2.0):
        found, reach = [], []
        for _ in range(150):
            ages = age_effect * rng.normal(size=(8, 1, 1))
            people = ages + rng.normal(size=(8, 2, 5))
            made = np.tile(ages, (2, 1, 1)) + rng.normal(size=(6, 16, 2, 5)) + 1.0
            scores = Rescored.of(made, people)
            found.append(scores.interval.mean)
            reach.append((scores.interval.high - scores.interval.low) / 2)
        assert 1.8 < np.mean(reach) / np.std(found) < 3.2


def test_with_few_samples_those_at_a_persons_age_stay_when_too_few_would_be_left() -> None:
    people, made = np.random.default_rng(3).normal(size=(3, 2, 4)), np.ones((3, 2, 2, 4))
    assert np.isfinite(Rescored.of(made, people).without).all()


def test_chosen_is_the_smallest_of_those_that_are_not_clearly_worse_than_the_leader() -> None:
    slots = [
        record(0, 0.50, trainable=900),
        record(1, 0.40, trainable=1000),
        record(2, 0.41, trainable=10),
        record(3, 0.30, trainable=5, copy_share=0.9),
        record(4, 0.90, trainable=1),
        record(5, 0.0, State.FAILED),
    ]
    again = {
        0: scores(0.50, 0.51, 0.49),
        1: scores(0.40, 0.42, 0.38),
        2: scores(0.41, 0.40, 0.42),
        4: scores(0.90, 0.91, 0.89),
    }
    found = choosing.choose(slots, settings(), again, hand_picked=1)
    assert found.leader is slots[1]
    assert found.chosen is slots[2]
    assert [one.number for one in found.hand_picked] == [0]
    assert found.against(slots[0]).high < 0
    said = " ".join(choosing.sentences(found, slots, settings()))
    assert "Chosen: trial 2" in said
    assert "Trial 1 (lora rank 1" in said
    assert "better than it" in said
    text = page.table(slots, found, settings()).splitlines()
    marks = [line[:16].split("  ")[0] for line in text[1:]]
    assert marks == ["beyond a limit", "front", "chosen", "by hand", "front", ""]
    assert any(" failed" in line for line in text)


def test_no_difference_from_the_hand_picked_is_said() -> None:
    slots = [record(0, 0.50, trainable=5), record(1, 0.49, trainable=4)]
    again = {0: scores(0.5, 0.6, 0.4), 1: scores(0.49, 0.4, 0.6)}
    found = choosing.choose(slots, settings(), again, hand_picked=1)
    assert found.chosen is slots[1]
    assert "no difference from it" in " ".join(choosing.sentences(found, slots, settings()))
    by_hand = choosing.choose(slots, settings(), {0: again[0]}, hand_picked=1)
    assert "are hand-picked ones" in " ".join(choosing.sentences(by_hand, slots, settings()))


def test_nothing_is_chosen_when_every_trial_is_beyond_a_limit() -> None:
    slots = [record(0, 0.5, copy_share=0.9), record(1, 0.4, copy_share=0.7)]
    again = {0: scores(0.5, 0.5, 0.5)}
    found = choosing.choose(slots, settings(), again, hand_picked=1)
    assert found.chosen is None
    (said,) = choosing.sentences(found, slots, settings())
    assert "none of 2 with a result is within the limits (copy_share 0.5)" in said


def test_finalists_are_the_best_within_the_limits_and_all_hand_picked() -> None:
    slots = [record(i, 0.9 - 0.1 * i) for i in range(6)] + [record(6, 0.0, copy_share=1.0)]
    found = choosing.finalists(slots, settings(), hand_picked=2)
    assert [one.number for one in found] == [5, 4, 1, 0]


def test_the_hypervolume_grows_with_trials_within_the_limits_alone() -> None:
    slots = [
        record(0, 1.0, trainable=100),
        record(1, 0.5, trainable=100),
        record(2, 0.1, trainable=1, copy_share=0.9),
        record(3, 0.5, trainable=50),
    ]
    worst = analysis.reference(slots, settings(), hand_picked=1)
    assert worst == pytest.approx([1.1, 110.0])
    times, found = zip(*analysis.growth(slots, settings(), worst), strict=True)
    assert times == (1.0, 2.0, 3.0, 4.0)
    area = [(1 - 1 / 1.1) ** 2, (1 - 0.5 / 1.1) * (1 - 1 / 1.1)]
    assert found == pytest.approx([*area, area[1], (1 - 0.5 / 1.1) * (1 - 50 / 110)])


def test_the_page_frames_the_blocks_that_the_chosen_trial_adapts(tmp_path: Path) -> None:
    """Without a choice of blocks a trial adapts those of params.yaml; `none` adapts nothing."""
    made = study(tmp_path)
    lora, none = record(0, 0.5), record(1, 0.6)
    none.config.update(method="none", settings={})
    for chosen, expected in ((lora, True), (none, False)):
        found = page._blocks(made, choosing.Choice(chosen, chosen, {}, []), [lora, none])
        assert {on for _, on, _ in found} == {expected}
        assert [gap for _, _, gap in found] == pytest.approx([-0.1] * 3)
