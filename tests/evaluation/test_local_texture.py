"""Local texture: known answers for grain, outline, pieces and holes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.local_texture import DECIDING, NAMES, local_texture, pieces

SIDE = 40
CUBE = (slice(8, 32),) * 3
EDGE = 24


def cube() -> NDArray[np.bool_]:
    mask = np.zeros((SIDE,) * 3, dtype=bool)
    mask[CUBE] = True
    return mask


def measured(
    fa: NDArray[np.float64] | float = 0.4,
    md: NDArray[np.float64] | float = 0.8,
    brain: NDArray[np.bool_] | None = None,
    tracts: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    brain = cube() if brain is None else brain
    tracts = cube() if tracts is None else tracts
    maps = [np.where(brain, image, 0.0) for image in (fa, md)]
    found = local_texture(maps[0], maps[1], brain, tracts, np.zeros_like(brain))
    return dict(zip(NAMES, found, strict=True))


def noise(seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((SIDE,) * 3)


def test_grain_of_white_noise_is_its_variance_less_that_of_the_local_mean() -> None:
    found = measured(0.4 + 0.1 * noise(0), 0.8 + 0.2 * noise(1))
    # The mean of 27 voxels has 1/27 of the variance, and covaries by as much with each of them.
    assert found["fa_grain"] == pytest.approx(np.log10(0.01 * 26 / 27), abs=0.02)
    assert found["md_grain"] == pytest.approx(np.log10(0.04 * 26 / 27), abs=0.02)
    # At a face 18 voxels count.
    assert found["fa_edge_grain"] == pytest.approx(np.log10(0.01 * 17 / 18), abs=0.03)
    assert found["fa_grain_tails"] == pytest.approx(np.log10(3), abs=0.03)
    assert found["grain_coupling"] == pytest.approx(0, abs=0.03)


def test_a_smooth_map_has_no_grain_and_the_background_does_not_count() -> None:
    assert measured()["fa_grain"] < -10
    assert measured()["fa_edge_grain"] < -10


@pytest.mark.parametrize(("sign", "expected"), [(1, 1.0), (-1, -1.0)])
def test_grain_that_both_maps_share_is_coupled(sign: int, expected: float) -> None:
    shared = noise(2)
    found = measured(0.4 + 0.1 * shared, 0.8 + sign * 0.05 * shared)
    assert found["grain_coupling"] == pytest.approx(expected)


def test_grain_of_wider_blobs_is_alike_in_neighbours() -> None:
    from scipy.ndimage import gaussian_filter

    fine, wide = (measured(0.4 + image)["fa_grain_range"] for image in
                  (noise(3), gaussian_filter(noise(3), 1.0)))  # fmt: skip
    assert fine < 0.05 < 0.5 < wide


def test_single_voxels_that_stick_out_have_tails() -> None:
    salt = np.where(np.random.default_rng(4).random((SIDE,) * 3) < 0.01, 1.0, 0.0)
    assert measured(0.4 + salt)["fa_grain_tails"] > np.log10(3) + 0.8


def test_a_majority_vote_takes_edges_and_corners_off_a_cube() -> None:
    shell = EDGE**3 - (EDGE - 2) ** 3
    assert measured()["boundary_roughness"] == pytest.approx((12 * (EDGE - 2) + 8) / shell)


def test_a_ragged_boundary_is_rougher() -> None:
    brain = cube()
    ragged = brain.copy()
    ragged[8] &= np.random.default_rng(5).random((SIDE, SIDE)) < 0.7
    assert measured(brain=ragged)["boundary_roughness"] > measured()["boundary_roughness"] + 0.02


def test_holes_are_counted() -> None:
    tracts = cube()
    tracts[20, 20, 20] = tracts[15, 15, 15] = False
    assert measured(tracts=tracts)["tract_holes"] == pytest.approx(2 / (EDGE**3 - 2))
    assert measured()["tract_holes"] == 0
    assert measured(brain=tracts)["brain_holes"] == pytest.approx(2 / (EDGE**3 - 2))


def test_pieces_are_connected_by_faces() -> None:
    brain = cube()
    assert pieces(brain) == 1
    brain[7, 7, 7] = True  # touches the cube's corner
    brain[2, 2, 2:4] = True
    assert pieces(brain) == 3


def test_an_empty_volume_has_finite_measures() -> None:
    empty = np.zeros((SIDE,) * 3, dtype=bool)
    assert np.isfinite(list(measured(brain=empty, tracts=empty).values())).all()


def test_what_decides_is_measured() -> None:
    assert set(DECIDING) < set(NAMES)
