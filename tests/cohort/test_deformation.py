"""Deformations between template and subject."""

from __future__ import annotations

import numpy as np
import pytest

from cohort.simulation.deformation import (
    Deformation,
    exponential,
    grid,
    random_field,
    sample,
    to_index,
)


@pytest.fixture(scope="module")
def velocity() -> np.ndarray:
    stream = np.random.default_rng(0)
    return np.stack([3 * random_field(stream, 34) for _ in range(3)], axis=-1)


@pytest.fixture(scope="module")
def inner() -> np.ndarray:
    points = grid().centres().reshape(-1, 3)
    return points[np.all(np.abs(points - points.mean(axis=0)) < 50, axis=1)]


def test_flow_backward_undoes_flow_forward(velocity: np.ndarray, inner: np.ndarray) -> None:
    there = exponential(velocity).to_template(inner)
    back = exponential(-velocity).to_template(there)
    assert np.abs(there - inner).max() > 3
    assert np.abs(back - inner).max() < 0.5


def test_flow_never_folds(velocity: np.ndarray) -> None:
    shift = exponential(velocity).shift
    jacobian = np.zeros((*grid().shape, 3, 3))
    for i in range(3):
        for j in range(3):
            jacobian[..., i, j] = np.gradient(shift[..., i], 4.0, axis=j) + (i == j)
    assert np.linalg.det(jacobian).min() > 0


def test_directions_turn_with_the_subject() -> None:
    # Template = rotated subject: p_template = R p_subject, so directions turn by R inverse.
    angle = 0.2
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    centres = grid().centres()
    rotation = Deformation((centres @ turn.T - centres).astype(np.float32))
    points = np.array([[3.0, -10.0, 7.0], [20.0, 5.0, -8.0]])
    along = np.array([[1.0, 0, 0], [0, 1.0, 0]], dtype=np.float32)
    np.testing.assert_allclose(rotation.reorient(along, points), along @ turn, atol=1e-4)


def test_no_shift_is_the_identity(inner: np.ndarray) -> None:
    still = exponential(np.zeros((*grid().shape, 3), np.float32))
    np.testing.assert_array_equal(still.to_template(inner), inner)


def test_sampling_at_voxel_centres_gives_the_voxels() -> None:
    values = random_field(np.random.default_rng(2), 16)
    index = to_index(grid().centres().reshape(-1, 3), grid())
    np.testing.assert_allclose(sample(values, index).reshape(values.shape), values, atol=1e-5)


def test_random_fields_are_smooth_and_standardised() -> None:
    field = random_field(np.random.default_rng(3), 20)
    assert field.std() == pytest.approx(1, abs=1e-3)
    assert np.abs(np.diff(field, axis=0)).mean() < 0.4
