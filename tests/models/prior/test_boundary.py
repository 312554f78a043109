"""How maps follow the boundary: known slopes come back, and nothing is lost on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cohort import channels
from contracts.condition import Condition
from models.prior.boundary import BoundaryRegression

SHAPE = (16, 18, 16)


def _people(n: int) -> list[Condition]:
    ages = np.random.default_rng(0).uniform(20, 80, n)
    return [Condition(float(a), "M" if i % 2 else "F") for i, a in enumerate(ages)]


def _balls(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n, X, Y, Z) of balls of several sizes, and their signed distances."""
    rng = np.random.default_rng(1)
    places = np.stack(np.meshgrid(*(np.arange(s) for s in SHAPE), indexing="ij"))
    centres = np.array(SHAPE) / 2 - 0.5 + rng.normal(0, 0.4, (n, 3))
    radii = rng.uniform(4.5, 6.5, n)
    away = np.linalg.norm(places[None] - centres[:, :, None, None, None], axis=1)
    masks = away < radii[:, None, None, None]
    return masks, np.stack([channels.signed_distance(m) for m in masks])


def _tied(n: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Encoded volumes whose maps are noise, and 1 and -2 times what the signed distance has
    below the outermost layer."""
    masks, distances = _balls(n)
    rng = np.random.default_rng(2)
    maps = noise * rng.standard_normal((n, 2, *SHAPE)).astype(np.float32)
    below = np.clip(distances, 1 / 6, 2.5 / 3)
    maps += below[:, None] * np.array([1, -2], dtype=np.float32)[:, None, None, None]
    return np.concatenate([maps, distances[:, None]], axis=1), channels.possible_brain(masks)


def test_finds_slopes_that_are_there() -> None:
    volumes, reach = _tied(200, 0.05)
    regression = BoundaryRegression.fit(volumes, reach, _people(200))
    crossed = reach & (np.clip(volumes[:, 2], 1 / 6, 2.5 / 3).std(axis=0) > 0.2)
    assert crossed.sum() > 100
    for k, slope in enumerate((1, -2)):
        assert abs(regression.slopes[1, k][crossed].mean() / slope - 1) < 0.05
    # Nothing ties the maps to the signed distance beyond the outermost layer.
    assert np.abs(regression.slopes[0][:, crossed].mean(axis=1)).max() < 0.05
    left = regression.removed_from(volumes)[:, :2]
    assert left[:, :, crossed].std(axis=0).mean() < 0.3 * volumes[:, :2, crossed].std(axis=0).mean()


def test_is_zero_where_boundaries_do_not_differ_and_outside_the_mask() -> None:
    volumes, reach = _tied(12, 0.1)
    volumes[:, 2] = volumes[0, 2]
    assert np.abs(BoundaryRegression.fit(volumes, reach, _people(12)).slopes).max() < 1e-3
    volumes, reach = _tied(12, 0.1)
    regression = BoundaryRegression.fit(volumes, reach, _people(12))
    assert not regression.slopes[:, :, ~reach].any()
    np.testing.assert_array_equal(
        regression.removed_from(volumes)[:, :, ~reach], volumes[:, :, ~reach]
    )


def test_an_effect_of_age_on_both_is_left_to_the_regression() -> None:
    volumes, reach = _tied(60, 0.1)
    people = _people(60)
    age = np.array([c.age for c in people])[:, None, None, None, None] / 100
    aged = volumes.copy()
    aged[:, :2] += age
    np.testing.assert_allclose(
        BoundaryRegression.fit(aged, reach, people).slopes,
        BoundaryRegression.fit(volumes, reach, people).slopes,
        atol=1e-4,
    )


def test_a_cohort_of_one_sex_loses_nothing_but_the_effect_of_sex() -> None:
    volumes, reach = _tied(60, 0.1)
    women = [replace(c, sex="F") for c in _people(60)]
    alone = BoundaryRegression.fit(volumes, reach, women)
    mixed = BoundaryRegression.fit(volumes, reach, _people(60))
    # One regressor of 60 less: the slopes move by what chance ties to sex.
    np.testing.assert_allclose(
        alone.slopes[1].mean((1, 2, 3)), mixed.slopes[1].mean((1, 2, 3)), rtol=0.05
    )
    np.testing.assert_allclose(alone.added_to(alone.removed_from(volumes)), volumes, atol=1e-6)


def test_adding_undoes_removing_of_one_and_of_many() -> None:
    volumes, reach = _tied(12, 0.1)
    regression = BoundaryRegression.fit(volumes, reach, _people(12))
    free = regression.removed_from(volumes)
    np.testing.assert_array_equal(free[:, 2], volumes[:, 2])
    np.testing.assert_allclose(regression.added_to(free), volumes, atol=1e-6)
    np.testing.assert_array_equal(regression.removed_from(volumes[3]), free[3])
