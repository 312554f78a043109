"""Intervals, features, regions, copies and the judge over them."""

from __future__ import annotations

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.maps import FA, MD
from evaluation import anatomy
from evaluation.baseline import gaussian_volumes
from evaluation.diversity import KERNEL, SCALES, SIGMA, ms_ssim, pair_scores
from evaluation.features import FeatureSpace, block_features
from evaluation.interval import jackknife, two_sample
from evaluation.privacy import copy_share
from evaluation.scores import Cohort, Judge
from models.gaussian import ConditionalGaussian

MAPS = (FA, MD)


def cohort(n: int, seed: int, slope: float = -0.02) -> Cohort:
    """Smooth volumes of 24^3 whose FA falls and MD rises with age; people of all ages."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    people = [
        Condition(float(age), "M" if rng.random() < 0.5 else "F") for age in rng.uniform(20, 80, n)
    ]
    template = gaussian_filter(np.random.default_rng(99).normal(size=(24, 24, 24)), 3)
    template = 0.5 + 0.2 * template / template.std()
    out = np.zeros((n, 2, 24, 24, 24), dtype=np.float32)
    for i, person in enumerate(people):
        own = gaussian_filter(rng.normal(size=(2, 24, 24, 24)), (0, 1.5, 1.5, 1.5))
        own *= 0.05 / own.std()
        ageing = slope * (person.age - 50) / 10
        out[i, 0] = np.clip(template + own[0] + ageing, 0.01, 1)
        out[i, 1] = np.clip(1e-3 * (1.2 - template + own[1] - 2 * ageing), 2e-4, 3e-3)
    out[:, :, :2] = out[:, :, -2:] = 0
    return Cohort(out, people)


def test_jackknife_interval_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(size=50)
    found = jackknife(lambda i, _: float(values[i].mean()), 50, 0)
    half = 1.959964 * values.std(ddof=1) / 50**0.5
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.value == pytest.approx(half)


def test_two_sample_interval_covers() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        found = two_sample(
            lambda a, b: float(a.mean() - b.mean()), rng.normal(1, 1, 20), rng.normal(0, 2, 30)
        )
        hits += found.low <= 1 <= found.high
    assert 0.89 <= hits / 200 <= 0.99


def test_features_of_a_constant_volume_are_its_mean() -> None:
    features = block_features(np.full((1, 1, 16, 16, 16), 0.7, dtype=np.float32))
    np.testing.assert_allclose(features, [[0.7] * 8 + [0.0] * 16], atol=1e-6)


def test_features_standardise_the_reference() -> None:
    reference = cohort(12, 0).volumes
    points = FeatureSpace.fit(reference)(reference)
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(points.std(axis=0), 1, atol=1e-9)


def test_region_means_and_age_slope_have_known_answers() -> None:
    labels = np.zeros((4, 4, 4), dtype=np.int32)
    labels[:2] = 1
    labels[2:] = 5
    images = np.where(labels == 1, 0.3, 0.6).astype(np.float32)[None]
    np.testing.assert_allclose(anatomy.region_means(images, labels, [1, 5]), [[0.3, 0.6]])
    people = [Condition(a, s) for a in (20.0, 40.0, 70.0) for s in ("F", "M")]
    values = np.array([0.5 - 0.003 * p.age + 0.1 * (p.sex == "M") for p in people])
    assert anatomy.age_slope(values, people) == pytest.approx(-0.03)


def test_copies_are_found_and_new_people_are_not() -> None:
    rng = np.random.default_rng(2)
    train, held_out, new = (rng.normal(size=(n, 20)) for n in (60, 400, 400))
    copies = train[rng.integers(60, size=200)] + 0.1 * rng.normal(size=(200, 20))
    assert copy_share(new, held_out, train) == pytest.approx(0.05, abs=0.04)
    assert copy_share(copies, held_out, train) == 1


def test_ms_ssim_tells_copies_from_people() -> None:
    people = np.kron(cohort(4, 3).volumes[:, 0], np.ones((1, 2, 2, 2), dtype=np.float32))
    assert ms_ssim(people[[0, 0, 0]], 1.0, 3).value == pytest.approx(1, abs=1e-9)
    assert ms_ssim(people, 1.0, 6).value < 0.95


def test_ms_ssim_agrees_with_monai() -> None:
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    images = np.kron(cohort(2, 4).volumes[:, 0], np.ones((1, 2, 2, 2), dtype=np.float32))
    metric = MultiScaleSSIMMetric(
        3, data_range=1.0, kernel_size=KERNEL, kernel_sigma=SIGMA, weights=SCALES
    )
    a, b = (torch.from_numpy(v[None, None]) for v in images)
    found = pair_scores(images, np.array([[0, 1]]), 1.0)[0]
    assert found == pytest.approx(float(metric(a, b)), abs=1e-4)


class TestGaussian:
    def test_mean_follows_the_regression_and_draws_its_covariance(self) -> None:
        rng = np.random.default_rng(5)
        people = [Condition(float(a), "F") for a in rng.uniform(20, 80, 200)]
        mixing = 0.1 * rng.normal(size=(3, 6))
        age = np.array([p.age for p in people])[:, None]
        values = (0.01 * age + rng.normal(size=(200, 3)) @ mixing).astype(np.float32)
        gaussian = ConditionalGaussian.fit(values, people)
        older = gaussian.mean([Condition(70, "F")]) - gaussian.mean([Condition(40, "F")])
        np.testing.assert_allclose(older, np.full((1, 6), 0.3), atol=0.1)
        draws = gaussian.sample([Condition(50, "F")] * 4000, range(4000))
        np.testing.assert_allclose(np.cov(draws.T), mixing.T @ mixing, atol=0.01)

    def test_a_draw_is_fixed_by_its_seed(self) -> None:
        train = cohort(12, 6)
        two = gaussian_volumes(train, train.conditions[:2], [4, 9], MAPS)
        one = gaussian_volumes(train, train.conditions[1:2], [9], MAPS)
        np.testing.assert_allclose(two[1:], one, atol=1e-6)


@pytest.fixture(scope="module")
def judge() -> Judge:
    labels = np.zeros((24, 24, 24), dtype=np.int32)
    labels[4:12], labels[12:20] = 1, 2
    return Judge(cohort(30, 7), cohort(24, 8), MAPS, (labels, {1: "left", 2: "right"}))


def distances(judge: Judge, candidate: Cohort) -> dict[str, float]:
    return {name: score.value for name, score in judge._maps(candidate).items()} | {
        "kernel_distance": judge._kernel(candidate).value
    }


def test_new_real_subjects_score_near_zero(judge: Judge) -> None:
    score = judge._kernel(cohort(24, 9))
    assert score.low <= 0 <= score.high or score.value < 0.02


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        (lambda v: v * np.array([1, 1.2])[:, None, None, None], "md_histogram_distance"),
        (lambda v: v * np.array([0.8, 1])[:, None, None, None], "fa_region_error"),
        (lambda v: np.repeat(v.mean(axis=0, keepdims=True), len(v), axis=0), "kernel_distance"),
        (lambda v: v[:, :, :, ::-1], "fa_mean_map_error"),
        (lambda v: v + 0.1 * np.random.default_rng(0).normal(size=v.shape), "kernel_distance"),
    ],
)
def test_a_spoiled_set_scores_worse(judge: Judge, change, metric: str) -> None:  # type: ignore[no-untyped-def]
    good = cohort(24, 9)
    bad = Cohort(change(good.volumes).astype(np.float32), good.conditions)
    assert distances(judge, bad)[metric] > 1.5 * max(distances(judge, good)[metric], 1e-6)


def test_age_slope_is_recovered_within_its_interval(judge: Judge) -> None:
    slope = judge._maps(cohort(40, 10, slope=-0.02))["fa_age_slope"]
    assert slope.low <= -0.02 <= slope.high
    assert slope.high < 0
