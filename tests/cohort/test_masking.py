"""The brain mask of a head."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cohort import masking
from contracts.errors import UserError

ZOOMS = np.array([4.0, 4.0, 4.0])


def _ball(centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*[np.arange(48) * 4.0] * 3, indexing="ij"), axis=-1)
    inside: NDArray[np.bool_] = ((grid - np.array(centre)) ** 2).sum(axis=-1) <= radius**2
    return inside


def _head(shading: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A brain, two eyes in front of it, noise; a coil's shading darkens the middle."""
    random = np.random.default_rng(0)
    brain = _ball((94, 90, 94), 64)
    eyes = _ball((70, 168, 94), 12) | _ball((118, 168, 94), 12)
    depth = np.clip(1 - _distance(brain) / 64, 0, 1)
    signal = 400.0 * brain * (1 - shading * (1 - depth)) + 500 * eyes
    noise = random.normal(0, 12, (2, 48, 48, 48))
    return np.hypot(signal + noise[0], noise[1]).astype(np.float32), brain


def _distance(brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(brain, sampling=ZOOMS))


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)))


@pytest.mark.parametrize("shading", [0.0, 0.7])
def test_finds_the_brain_and_leaves_the_eyes(shading: float) -> None:
    b0, brain = _head(shading)
    mask = masking.brain_mask(b0, ZOOMS)
    assert _dice(mask, brain) > 0.95
    assert not (mask & _ball((70, 168, 94), 12)).any()


def test_signal_scale_does_not_matter() -> None:
    b0, _ = _head()
    scaled = masking.brain_mask(b0 * np.float32(64), ZOOMS)
    np.testing.assert_array_equal(masking.brain_mask(b0, ZOOMS), scaled)


def test_solid_keeps_the_largest_part_and_fills_it() -> None:
    shell = _ball((94, 94, 94), 60) & ~_ball((94, 94, 94), 40)
    island = _ball((180, 180, 180), 8)
    np.testing.assert_array_equal(masking.solid(shell | island), _ball((94, 94, 94), 60))


def test_empty_volume_is_told() -> None:
    with pytest.raises(UserError, match="empty"):
        masking.brain_mask(np.zeros((8, 8, 8), dtype=np.float32), ZOOMS)
