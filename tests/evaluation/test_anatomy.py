"""Ageing, sex, sides, expected anatomy, privacy and utility, with known answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from contracts.errors import UserError
from evaluation import anatomy, privacy, utility
from evaluation.audit import Auditor
from evaluation.comparison import Comparison, Measure
from evaluation.controls import controls
from evaluation.copies import plant_canaries
from evaluation.copy_search import best_match, best_pair
from evaluation.copy_share import copy_share
from evaluation.measured_set import MeasuredSet
from evaluation.measurement_grid import MeasurementGrid
from evaluation.measurements import Measurements, measure_volumes
from evaluation.ms_ssim import KERNEL
from evaluation.results import Question
from evaluation.volume_set import VolumeSet, read_folder
from tests.evaluation.people import LABELS, MAPS, REGIONS, SPACE, people

TRAIN, TEST, NEW = people(40, 1), people(36, 2), people(36, 3)


@pytest.fixture(scope="module")
def auditor() -> Auditor:
    return Auditor.from_volumes(TRAIN, TEST, SPACE, MAPS, (LABELS, REGIONS), permutations=200)


@pytest.fixture(scope="module")
def grid(auditor: Auditor) -> MeasurementGrid:
    return auditor.grid


def measured(cohort: VolumeSet, grid: MeasurementGrid) -> Measurements:
    return measure_volumes(cohort.volumes, cohort.conditions, grid)


def failed(auditor: Auditor, cohort: VolumeSet) -> tuple[Question, ...]:
    return auditor.audit("x", MeasuredSet.from_volumes(cohort, auditor.grid)).failed


def changed(cohort: VolumeSet, volumes: np.ndarray) -> VolumeSet:
    return VolumeSet(volumes.astype(np.float32), cohort.conditions, cohort.ids)


def test_new_people_pass_and_copies_fail_privacy_alone(auditor: Auditor) -> None:
    assert failed(auditor, NEW) == ()
    assert failed(auditor, TRAIN.take(np.arange(36))) == ("privacy",)


def test_wrong_units_and_lost_contrast_are_seen(auditor: Auditor) -> None:
    volumes = NEW.volumes.copy()
    volumes[:, 1] *= 1000
    assert "anatomy" in failed(auditor, changed(NEW, volumes))
    mean = np.repeat(NEW.volumes.mean(axis=0, keepdims=True), len(NEW), axis=0)
    assert {"fidelity", "diversity"} <= set(failed(auditor, changed(NEW, mean)))


def test_shuffled_ages_fail_anatomy_not_fidelity(auditor: Auditor) -> None:
    order = np.random.default_rng(0).permutation(len(NEW))
    conditions = tuple(NEW.conditions[i] for i in order)
    found = failed(auditor, VolumeSet(NEW.volumes, conditions))
    assert "anatomy" in found
    assert "fidelity" not in found


def test_audit_is_the_same_twice_and_with_workers(auditor: Auditor) -> None:
    one = auditor.audit("x", MeasuredSet.from_volumes(NEW, auditor.grid))
    two = auditor.audit("x", MeasuredSet.from_volumes(NEW, auditor.grid, workers=2))
    assert one.to_json() == two.to_json()


def test_yardsticks_stand_beside_and_real_halves_are_near_zero(auditor: Auditor) -> None:
    subject = MeasuredSet.from_volumes(NEW, auditor.grid)
    audit = auditor.audit("x", subject, {"copies": auditor.train})
    copies = audit.answer("privacy").finding("copy_share").yardsticks
    assert copies["copies"] > 80
    assert abs(copies["real"]) < 30
    duplicates = audit.answer("privacy").finding("near_duplicates")
    assert duplicates.yardsticks["copies"] == len(TRAIN)
    kernel = audit.answer("fidelity").finding("kernel_distance")
    assert set(kernel.yardsticks) == {"real", "copies"}


@pytest.mark.parametrize("slope", [-0.02, -0.04])
def test_known_difference_in_ageing_is_within_its_interval(
    grid: MeasurementGrid, slope: float
) -> None:
    made, real = (measured(people(60, 5, slope), grid), measured(people(60, 6), grid))
    pooled = made.followed_by(real)
    statistic = anatomy.effect(pooled.regions[:, 0], pooled, 1)
    measure = Measure("age", "Age", "per decade", statistic, "both", 0.001, 10.0)
    found = Comparison(60, 60, 200).answer("anatomy", [measure], {}).findings[0]
    assert found.low <= slope - -0.02 <= found.high


def test_limits_of_agreement_are_the_shift_and_nothing_else(grid: MeasurementGrid) -> None:
    real = measured(NEW, grid)
    shifted = replace(real, regions=real.regions + np.array([0.02, 1e-5])[:, None])
    fa, md = anatomy.agreement(shifted, real, grid)
    assert (fa.low, fa.value, fa.high) == pytest.approx((0.02,) * 3)
    assert (md.low, md.value, md.high) == pytest.approx((10.0,) * 3)
    uneven = replace(real, regions=real.regions + np.array([0.01, 0.03]))
    fa, _ = anatomy.agreement(uneven, real, grid)
    assert fa.value == pytest.approx(0.02)
    assert fa.high - fa.value == pytest.approx(1.96 * 0.01 * 2**0.5, rel=1e-3)
    assert fa.verdict == "not measured"


def test_an_effect_that_a_group_cannot_have_is_left_out(grid: MeasurementGrid) -> None:
    pooled = measured(NEW, grid)
    women = replace(pooled, male=np.zeros(len(pooled)))
    statistic = anatomy.effect(women.regions[:, 0], women, 2)
    member = (np.arange(len(pooled)) < 18).astype(float)[None]
    np.testing.assert_array_equal(statistic(member, 1 - member), 0)


def test_dice_with_the_expected_anatomy_is_high_for_people_and_low_for_noise(
    grid: MeasurementGrid,
) -> None:
    train, new = measured(TRAIN, grid), measured(NEW, grid)
    people_dice = anatomy.dice(new, train)
    shuffled = replace(
        new, white_matter=np.random.default_rng(0).permuted(new.white_matter, axis=1)
    )
    assert people_dice.mean() > anatomy.dice(shuffled, train).mean() + 0.1
    assert people_dice.max() <= 1


def test_age_is_read_from_features(grid: MeasurementGrid) -> None:
    found = anatomy.predicted_age(measured(NEW, grid), measured(TRAIN, grid))
    age = np.array([c.age for c in NEW.conditions])
    assert np.corrcoef(found, age)[0, 1] > 0.9


def test_disguised_copies_are_found_by_name(grid: MeasurementGrid) -> None:
    hidden = plant_canaries(NEW, TRAIN, 3)
    pooled = measured(hidden, grid).followed_by(measured(TEST, grid))
    match = best_match(pooled, measured(TRAIN, grid))
    found, blends = privacy.duplicates(match, len(hidden), hidden.ids)
    assert blends.value == 3  # who is one subject is also a mixture of that one and another
    assert found.verdict == "fail"
    assert found.value == 3
    assert all(name.startswith("canary") for name in found.details)
    clean = measured(NEW, grid).followed_by(measured(TEST, grid))
    again = best_match(clean, measured(TRAIN, grid))
    assert [one.value for one in privacy.duplicates(again, len(NEW))] == [0, 0]


def test_a_mirrored_copy_is_found(grid: MeasurementGrid) -> None:
    mirrored = changed(TRAIN, TRAIN.volumes[:, :, ::-1])
    match = best_match(measured(mirrored, grid), measured(TRAIN, grid))
    assert (match.subject == np.arange(len(TRAIN))).all()
    assert match.correlation.min() > 0.95


@pytest.mark.parametrize(
    ("name", "kind", "named"),
    [
        ("three copies, warped", "near_duplicates", "bent"),
        ("three blends of two training subjects", "blends", "blend"),
    ],
)
def test_warped_and_blended_copies_are_found(
    name: str, kind: str, named: str, grid: MeasurementGrid
) -> None:
    control = next(c for c in controls() if c.name == name)
    made = control.make(NEW, TRAIN)
    pooled = measured(made, grid).followed_by(measured(TEST, grid))
    match = best_match(pooled, measured(TRAIN, grid))
    found = {one.name: one for one in privacy.duplicates(match, len(made), made.ids)}[kind]
    assert found.value == 3
    assert all(one.startswith(named) for one in found.details)
    mixed = TRAIN.volumes[:3].mean(axis=0), 0.6 * TRAIN.volumes[0] + 0.4 * TRAIN.volumes[1]
    matched = best_match(
        measured(changed(TRAIN.take([0, 1]), np.stack(mixed)), grid), measured(TRAIN, grid)
    )
    assert sorted(matched.pair[1]) == [0, 1]
    assert matched.pair_correlation[1] > 0.97 > matched.pair_correlation[0] > matched.correlation[0]


def test_the_best_two_are_those_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6, 50))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    one = rng.normal(size=50)
    one /= np.linalg.norm(one)
    found, rows = best_pair(images @ one, images)

    def fitted(pair: tuple[int, ...]) -> float:
        left = np.linalg.lstsq(images[list(pair)].T, one, rcond=None)[1]
        return float(np.sqrt(1 - left[0]))

    by_hand = {pair: fitted(pair) for pair in combinations(range(6), 2)}
    assert found == pytest.approx(max(by_hand.values()))
    assert tuple(sorted(rows)) == max(by_hand, key=by_hand.__getitem__)


def test_membership_of_a_loss_that_knows_and_of_one_that_does_not() -> None:
    rng = np.random.default_rng(0)
    blind = privacy.membership(rng.normal(size=60), rng.normal(size=60))
    assert blind.verdict == "pass"
    assert blind.low <= 0 <= blind.high
    knows = privacy.membership(rng.normal(-2, 1, 60), rng.normal(size=60))
    # P(N(0, 1) > N(-2, 1)) = Phi(2 / sqrt 2)
    assert knows.low <= 0.9214 - 0.5 <= knows.high
    assert knows.verdict == "fail"


def test_copy_share_is_a_twentieth_of_new_points_and_all_of_copies() -> None:
    rng = np.random.default_rng(2)
    train, held_out, new = (rng.normal(size=(n, 20)) for n in (60, 400, 400))
    copies = train[rng.integers(60, size=200)] + 0.1 * rng.normal(size=(200, 20))
    assert copy_share(new, held_out, train) == pytest.approx(0.05, abs=0.04)
    assert copy_share(copies, held_out, train) == 1


def test_copy_share_varies_little_with_whom_a_few_held_out_subjects_are() -> None:
    """With nine held-out subjects, one that copies nobody is rarely far above a twentieth."""
    rng = np.random.default_rng(5)
    shares = []
    for _ in range(200):
        train, held_out, new = (rng.standard_normal((n, 40)) for n in (36, 9, 200))
        shares.append(copy_share(new, held_out, train))
    assert 0.03 < np.mean(shares) < 0.09
    assert np.quantile(shares, 0.95) < 0.2


def test_learning_from_noise_is_worse_and_adding_real_people_helps(grid: MeasurementGrid) -> None:
    train, test, new = (measured(c, grid) for c in (TRAIN, TEST, NEW))
    noise = replace(new, features=np.random.default_rng(0).normal(size=new.features.shape))
    for made, verdict in ((new, "pass"), (noise, "fail")):
        pooled = made.followed_by(train.take(np.arange(len(made))))
        n = len(made)
        measures = [m for m in utility.measures(pooled, test, train) if m.name == "age_error"]
        assert Comparison(n, n, 200).answer("utility", measures, {}).verdict == verdict
    gain = utility.augmentation(new, train, test)
    first, *_, last = gain.details.values()
    assert first[0] < last[0]  # the fewer real people, the more synthetic ones help
    assert first[0] < 0


def test_folders_of_any_tool_are_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from contracts import volume

    cohort = people(3, 7)
    rows = ["participant_id\tage\tsex"]
    for i, name in enumerate(("s1", "s2", "s3")):
        volume.write(tmp_path / name / f"{name}_FA.nii.gz", cohort.volumes[i, 0], SPACE)
        volume.write(tmp_path / name / f"{name}_acq-x_md_map.nii.gz", cohort.volumes[i, 1], SPACE)
        person = cohort.conditions[i]
        rows.append(f"{name}\t{person.age}\t{person.sex}")
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    found, space = read_folder(tmp_path)
    np.testing.assert_array_equal(found.volumes, cohort.volumes)
    assert found.conditions == cohort.conditions
    assert space.shape == SPACE.shape
    (tmp_path / "s2" / "s2_acq-x_md_map.nii.gz").unlink()
    with pytest.raises(UserError, match="s2 has no MD map"):
        read_folder(tmp_path)


def test_missing_ages_are_told(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match="no FA or MD maps"):
        read_folder(tmp_path)
    (tmp_path / "a_FA.nii").touch()
    (tmp_path / "a_MD.nii").touch()
    with pytest.raises(UserError, match=r"no .*participants\.tsv"):
        read_folder(tmp_path)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\tsex\na\told\tF\n")
    with pytest.raises(UserError, match="an age in years"):
        read_folder(tmp_path)


def test_the_test_volumes_hold_three_scales() -> None:
    assert SPACE.shape[0] // 4 >= KERNEL
