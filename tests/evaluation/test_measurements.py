"""What is measured of a volume: known answers, and independence of company and workers."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from contracts.condition import Condition
from evaluation.block_features import block_features
from evaluation.measurement_grid import MeasurementGrid
from evaluation.measurements import BINS, Measurements, measure_volumes
from tests.evaluation.people import LABELS, MAPS, REGIONS, SIDE, SPACE, people


@pytest.fixture(scope="module")
def grid() -> MeasurementGrid:
    return MeasurementGrid.from_real(SPACE, MAPS, people(6, 0).volumes, (LABELS, REGIONS))


def equal(a: Measurements, b: Measurements) -> None:
    for f in fields(a):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), err_msg=f.name)


def test_company_and_workers_change_nothing(grid: MeasurementGrid) -> None:
    cohort = people(5, 1)
    together = measure_volumes(cohort.volumes, cohort.conditions, grid)
    equal(measure_volumes(cohort.volumes, cohort.conditions, grid, workers=2), together)
    equal(measure_volumes(cohort.volumes[3:4], cohort.conditions[3:4], grid), together.take([3]))
    equal(together.take([0, 1]).followed_by(together.take([2, 3, 4])), together)


def test_constant_volume_has_known_measurements(grid: MeasurementGrid) -> None:
    volume = np.zeros((2, SIDE, SIDE, SIDE), dtype=np.float32)
    inner = (slice(5, 27),) * 3
    volume[(0, *inner)], volume[(1, *inner)] = 0.5, 0.8e-3
    found = measure_volumes([volume], [Condition(40, "F")], grid)
    np.testing.assert_allclose(found.regions[0], [[0.5, 0.5], [0.8e-3, 0.8e-3]], rtol=1e-6)
    np.testing.assert_allclose(found.asymmetry, 0, atol=1e-9)
    assert found.histograms[0, 0, int(0.5 * BINS)] == 1
    np.testing.assert_allclose(found.tissues[0], [22**3 * 0.064, 22**3 * 0.064, 0])
    assert found.invalid == 0


def test_left_brighter_than_right_is_positive_asymmetry(grid: MeasurementGrid) -> None:
    volume = np.ones((2, SIDE, SIDE, SIDE), dtype=np.float32) * 0.5
    volume[1] = 0.8e-3
    volume[0, : SIDE // 2] = 0.6
    found = measure_volumes([volume, volume[:, ::-1]], [Condition(40, "F")] * 2, grid)
    np.testing.assert_allclose(found.asymmetry[0, 0], 0.1 / 1.1, rtol=1e-6)
    np.testing.assert_allclose(found.asymmetry[1], -found.asymmetry[0], atol=1e-9)
    np.testing.assert_allclose(found.features[0], found.features[1])  # blind to sides


@pytest.mark.parametrize(
    ("fault", "least"),
    [(np.nan, 1), (-0.1, 1), (1.5, 1), (np.inf, 1)],
)
def test_impossible_voxels_are_counted(grid: MeasurementGrid, fault: float, least: int) -> None:
    volume = people(1, 2).volumes[0].copy()
    volume[0, 10, 10, 10] = fault
    found = measure_volumes([volume], [Condition(40, "F")], grid)
    assert found.invalid[0] == pytest.approx(least / SIDE**3)
    assert np.isfinite(found.features).all()


def test_tissue_far_from_any_brain_is_impossible(grid: MeasurementGrid) -> None:
    volume = people(1, 2).volumes[0].copy()
    volume[1, :2, :2, :2] = 1e-3
    found = measure_volumes([volume], [Condition(40, "F")], grid)
    assert found.invalid[0] == pytest.approx(8 / SIDE**3)


def test_features_alone_are_those_of_the_measurements(grid: MeasurementGrid) -> None:
    cohort = people(2, 3)
    alone = block_features(cohort.volumes, SPACE, MAPS)
    np.testing.assert_array_equal(
        alone, measure_volumes(cohort.volumes, cohort.conditions, grid).features
    )


def test_noise_raises_the_power_of_short_waves_alone(grid: MeasurementGrid) -> None:
    volume = people(1, 4).volumes[0]
    noisy = volume.copy()
    noise = 0.1 * np.random.default_rng(0).normal(size=volume[0].shape)
    noisy[0] += np.where(volume[1] > 0, noise, 0).astype(np.float32)
    found = measure_volumes([volume, noisy], [Condition(40, "F")] * 2, grid)
    change = found.spectrum[1, 0] - found.spectrum[0, 0]
    assert change[-1] > 0.1
    assert abs(change[0]) < 0.1 * change[-1]


def test_without_an_atlas_quarters_of_the_brain_are_regions() -> None:
    grid = MeasurementGrid.from_real(SPACE, MAPS, people(3, 0).volumes, None)
    assert len(grid.regions) == 4
    assert set(np.unique(grid.labels)) == {0, 1, 2, 3, 4}
    assert grid.regions[int(grid.labels[16, 25, 25])] == "anterior superior"
