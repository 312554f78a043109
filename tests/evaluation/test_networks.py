"""Networks learn what is there to learn, nothing else, and say so with an interval."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
import torch

from contracts.condition import Condition
from contracts.maps import FA, MD
from evaluation.network_comparison import compare_networks
from evaluation.networks import NetworkSettings
from evaluation.results import Finding
from evaluation.volume_set import VolumeSet

MAPS = (FA, MD)
GUESS = "age of the average training subject"
DIMS: tuple[Literal["2d", "3d"], ...] = ("2d", "3d")


pytestmark = pytest.mark.usefixtures("one_thread")


def cohort(n: int, seed: int, signal: float = 1.0) -> VolumeSet:
    """Balls of 16^3: FA falls with age everywhere, men have a bright rod."""
    rng = np.random.default_rng(seed)
    ages = rng.uniform(20, 80, n)
    people = [Condition(float(a), "M" if i % 2 else "F") for i, a in enumerate(ages)]
    where = np.indices((16, 16, 16)) - 7.5
    inside = (where**2).sum(axis=0) < 49
    rod = where[0] ** 2 + (where[1] - 3) ** 2 < 9
    out = np.zeros((n, 2, 16, 16, 16), dtype=np.float32)
    for i, person in enumerate(people):
        noise = 0.03 * rng.normal(size=(2, 16, 16, 16))
        fa = 0.5 - signal * 0.006 * (person.age - 50) + signal * 0.3 * rod * (person.sex == "M")
        out[i, 0] = np.clip(fa + noise[0], 0.01, 1) * inside
        out[i, 1] = 1e-3 * (0.8 + noise[1]) * inside
    return VolumeSet(out, people)


def settings(dim: Literal["2d", "3d"]) -> NetworkSettings:
    # Few and wide steps: the signal is plain.
    return NetworkSettings(
        dim, epochs=25, seeds=2, batch=8, slices=4, channels=(8, 16), learning_rate=1e-2, draws=500
    )


def found(findings: Sequence[Finding], name: str) -> Finding:
    (one,) = [f for f in findings if f.name.endswith(name)]
    return one


TRAIN, TEST = cohort(32, 0), cohort(24, 1)


@functools.cache
def planted(dim: Literal["2d", "3d"]) -> tuple[Finding, ...]:
    return compare_networks(cohort(40, 2), TRAIN, TEST, MAPS, settings(dim))


@pytest.mark.parametrize("dim", DIMS)
class TestPlantedSignal:
    @pytest.fixture
    def findings(self, dim: Literal["2d", "3d"]) -> tuple[Finding, ...]:
        return planted(dim)

    def test_it_is_learnt_from_each_set(self, findings: tuple[Finding, ...]) -> None:
        ages = found(findings, "age_synthetic").details
        sexes = found(findings, "sex_synthetic").details
        assert set(sexes) == {"real", "synthetic", "real + synthetic"}
        for name, (auc, low, high) in sexes.items():
            assert auc > 0.85
            assert low <= auc <= high <= 1
            assert ages[name][0] < 0.4 * ages[GUESS][0]

    def test_a_set_of_the_same_population_does_not_differ(
        self, findings: tuple[Finding, ...]
    ) -> None:
        for name in ("age_synthetic", "age_added", "sex_synthetic", "sex_added"):
            one = found(findings, name)
            assert one.low <= one.value <= one.high
            # The interval does not cover the choice of the training subjects.
            assert abs(one.value) < (0.2 * one.details[GUESS][0] if "age" in name else 0.15)

    def test_it_is_reported_and_decides_nothing(self, findings: tuple[Finding, ...]) -> None:
        assert all(f.tolerance is None and f.verdict == "not measured" for f in findings)

    def test_differences_are_those_of_the_details(self, findings: tuple[Finding, ...]) -> None:
        one, other = found(findings, "age_synthetic"), found(findings, "age_added")
        numbers = {k: v[0] for k, v in one.details.items()}
        assert one.value == pytest.approx(numbers["synthetic"] - numbers["real"])
        assert other.value == pytest.approx(numbers["real + synthetic"] - numbers["real"])


def test_few_synthetic_volumes_are_compared_with_as_many_real() -> None:
    quick = dataclasses.replace(settings("3d"), epochs=1)
    findings = compare_networks(TRAIN.take(range(12)), TRAIN, TEST, MAPS, quick)
    one, other = found(findings, "age_synthetic"), found(findings, "age_added")
    numbers = {k: v[0] for k, v in one.details.items()}
    assert set(numbers) == {"12 real", "real", "synthetic", "real + synthetic", GUESS}
    assert one.value == pytest.approx(numbers["synthetic"] - numbers["12 real"])
    assert other.value == pytest.approx(numbers["real + synthetic"] - numbers["real"])


@pytest.mark.parametrize("dim", DIMS)
def test_nothing_is_learnt_from_shuffled_labels(dim: Literal["2d", "3d"]) -> None:
    ages = np.random.default_rng(3).permutation([c.age for c in TRAIN.conditions])
    # Half of the true men and half of the true women are called men.
    people = [Condition(float(a), "M" if i // 2 % 2 else "F") for i, a in enumerate(ages)]
    once = dataclasses.replace(settings(dim), seeds=1)
    findings = compare_networks(VolumeSet(TRAIN.volumes, people), TRAIN, TEST, MAPS, once)
    age, sex = (found(findings, f"{k}_synthetic") for k in ("age", "sex"))
    assert age.details["synthetic"][0] > 0.6 * age.details[GUESS][0]
    assert age.low > 0
    assert 0.1 < sex.details["synthetic"][0] < 0.9
    assert sex.value < -0.1


@pytest.mark.parametrize("dim", DIMS)
def test_a_copy_of_the_training_set_is_worth_the_same(dim: Literal["2d", "3d"]) -> None:
    quick = dataclasses.replace(settings(dim), epochs=1)
    first = compare_networks(TRAIN, TRAIN, TEST, MAPS, quick)
    for name in ("age_synthetic", "sex_synthetic"):
        one = found(first, name)
        assert (one.value, one.low, one.high) == pytest.approx((0, 0, 0), abs=1e-9)


@pytest.mark.parametrize("dim", DIMS)
def test_a_seed_fixes_the_numbers(dim: Literal["2d", "3d"]) -> None:
    quick = dataclasses.replace(settings(dim), epochs=1, seeds=1)
    few = TRAIN.take(range(12))
    torch.manual_seed(1)
    one = compare_networks(few, TRAIN, TEST, MAPS, quick)
    torch.manual_seed(2)
    after = torch.get_rng_state()
    again = compare_networks(few, TRAIN, TEST, MAPS, quick)
    assert one == again
    assert torch.equal(torch.get_rng_state(), after)
    other = compare_networks(few, TRAIN, TEST, MAPS, dataclasses.replace(quick, seed=1))
    assert found(one, "age_synthetic").value != found(other, "age_synthetic").value


def test_the_number_of_threads_changes_rounding_alone() -> None:
    quick = dataclasses.replace(settings("3d"), epochs=1, seeds=1)
    one = compare_networks(TRAIN, TRAIN, TEST, MAPS, quick)
    torch.set_num_threads(2)
    two = compare_networks(TRAIN, TRAIN, TEST, MAPS, quick)
    for a, b in zip(one, two, strict=True):
        first, second = (np.array(list(f.details.values())) for f in (a, b))
        np.testing.assert_allclose(first, second, atol=1e-2)


def test_without_women_to_test_on_there_is_no_finding_on_sex() -> None:
    men = TEST.take([i for i, c in enumerate(TEST.conditions) if c.sex == "M"])
    quick = dataclasses.replace(settings("3d"), epochs=1, seeds=1)
    findings = compare_networks(TRAIN, TRAIN, men, MAPS, quick)
    assert [f.name for f in findings] == ["network_3d_age_synthetic", "network_3d_age_added"]


def test_impossible_voxels_are_clipped() -> None:
    broken = TRAIN.volumes.copy()
    broken[:, :, 7, 7, 7] = np.nan
    broken[:, :, 7, 7, 8] = np.inf
    quick = dataclasses.replace(settings("3d"), epochs=1, seeds=1)
    findings = compare_networks(VolumeSet(broken, TRAIN.conditions), TRAIN, TEST, MAPS, quick)
    assert all(np.isfinite([f.value, f.low, f.high]).all() for f in findings)


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one synthetic"):
        compare_networks(TRAIN.take([]), TRAIN, TEST, MAPS, settings("3d"))


def test_intervals_cover_the_difference_between_learners() -> None:
    """Test subjects and seeds with known effects, drawn again and again."""
    from evaluation import network_comparison

    rng, hits = np.random.default_rng(4), 0
    quick = NetworkSettings("3d", seeds=4, draws=200)
    for _ in range(100):
        people = [Condition(50.0, "M" if i % 2 else "F") for i in range(40)]
        test = VolumeSet(np.zeros((40, 1)), people)  # type: ignore[arg-type]
        subject, noise = rng.normal(size=40), rng.normal(size=(2, 4, 40))
        seed = 0.5 * rng.normal(size=(2, 4, 1))
        wrong = 10 + np.array([0, 1])[:, None, None] * (1 + subject) + seed + noise
        draws = network_comparison._Bootstrap(test, quick)
        scores = {k: draws.age_error(50 + w) for k, w in zip(("a", "b"), wrong, strict=True)}
        _, low, high = network_comparison._interval(scores["b"] - scores["a"])
        hits += low <= 1 <= high
    assert 0.85 <= hits / 100 <= 0.99


def test_area_under_roc_is_the_share_of_pairs_in_order() -> None:
    from evaluation import network_comparison

    rng = np.random.default_rng(5)
    said = rng.normal(size=(2, len(TEST))).round(1)
    draws = network_comparison._Bootstrap(TEST, NetworkSettings("3d", seeds=2, draws=10))
    men = np.array([c.sex == "M" for c in TEST.conditions])
    pairs = [s[men][:, None] - s[~men] for s in said]
    expected = np.mean([(p > 0).mean() + 0.5 * (p == 0).mean() for p in pairs])
    assert draws.sex_auc(said)[0] == pytest.approx(expected)
