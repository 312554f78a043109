"""Alignment of a brain that is known to have moved."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from cohort import registration
from cohort.registration import MniTemplate, Warp
from contracts.space import Space


@pytest.fixture(scope="module")
def target() -> MniTemplate:
    return registration.load_mni_template(registration.registration_space())


def _maps(
    target: MniTemplate,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """FA and MD of a brain that lies like the target; the target's T1w tells fluid from tissue."""
    fluid = np.clip((0.55 - target.t1w) / 0.35, 0, 1) * target.brain
    fa = (0.12 + 0.45 * target.white) * (1 - fluid) * target.brain
    md = (0.75e-3 + 2.2e-3 * fluid) * target.brain
    return fa.astype(np.float32), md.astype(np.float32), target.brain


def _moved(target: MniTemplate) -> NDArray[np.float64]:
    """Affine of the same voxels in a scanner where the head is turned, shifted and 8 % smaller."""
    turn = np.deg2rad(8)
    move = np.eye(4)
    move[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    move[:3, :3] *= 0.92
    move[:3, 3] = [6, -9, 12]
    moved: NDArray[np.float64] = move @ target.space.matrix
    return moved


@pytest.fixture(scope="module")
def warp(target: MniTemplate) -> Warp:
    """The registration with fewer steps: the brain is the template's own."""
    fa, md, mask = _maps(target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "_AFFINE_STEPS", (40, 15))
        patch.setattr(registration, "_SYN_STEPS", (8, 6))
        return registration.register(fa, md, mask, _moved(target), target)


def test_a_moved_brain_comes_back(target: MniTemplate, warp: Warp) -> None:
    fa, md, mask = _maps(target)
    # Half a voxel off at the rim is inevitable, and MD is steepest there.
    inside = binary_erosion(mask, iterations=2)
    for values in (fa, md):
        back = warp.apply(values, mask, target.space)
        assert np.corrcoef(back[inside], values[inside])[0, 1] > 0.95
    covered = warp.mask(mask, target.space)
    assert np.count_nonzero(covered & mask) / np.count_nonzero(covered | mask) > 0.95


def test_a_constant_stays_that_constant_up_to_the_rim(target: MniTemplate, warp: Warp) -> None:
    _, _, mask = _maps(target)
    values = np.where(mask, 0.7e-3, 3e-3).astype(np.float32)
    back = warp.apply(values, mask, target.space)
    np.testing.assert_allclose(back[warp.mask(mask, target.space)], 0.7e-3, rtol=1e-4)


def test_output_may_be_on_a_finer_grid(target: MniTemplate, warp: Warp) -> None:
    fa, _, mask = _maps(target)
    fine = Space.from_affine(
        "fine", [2 * n for n in target.space.shape], target.space.matrix @ np.diag([0.5] * 3 + [1])
    )
    assert warp.apply(fa, mask, fine).shape == fine.shape
    coarse_ml = np.count_nonzero(warp.mask(mask, target.space)) * target.space.voxel_ml
    fine_ml = np.count_nonzero(warp.mask(mask, fine)) * fine.voxel_ml
    assert fine_ml == pytest.approx(coarse_ml, rel=0.04)


def test_target_is_in_the_working_space_and_symmetric(target: MniTemplate) -> None:
    assert target.t1w.shape == target.white.shape == target.space.shape
    assert 1700 < np.count_nonzero(target.brain) * target.space.voxel_ml < 2000
    # 2009a is the symmetric template: a left-right flip of the affine would show here.
    assert np.corrcoef(target.t1w.ravel(), target.t1w[::-1].ravel())[0, 1] > 0.99


def test_contrast_is_that_of_a_t1w_image() -> None:
    fa = np.array([0.6, 0.15, 0.05], dtype=np.float32)  # white matter, grey matter, fluid
    md = np.array([0.7e-3, 0.8e-3, 2.9e-3], dtype=np.float32)
    white, grey, fluid = registration.t1w_like(fa, md)
    assert white > grey > fluid >= 0
