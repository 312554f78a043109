"""Known tensor, known FA and MD."""

from __future__ import annotations

import numpy as np
import pytest

from cohort import tensor
from contracts.errors import UserError
from tests.cohort import phantom


def _fit(scale: float = 1.0, max_bvalue: float = 1300.0) -> tuple[tensor.TensorMaps, np.ndarray]:
    along, axial, radial = phantom.field((4, 4, 4))
    bvals, bvecs = phantom.gradients((1000, 15), (2000, 15))
    dwi = phantom.signal(phantom.tensors(along, axial, radial), bvals, bvecs, s0=1000 * scale)
    mask = np.ones((4, 4, 4), dtype=bool)
    mask[0] = False
    return tensor.fit(dwi, bvals, bvecs, mask, max_bvalue), mask


def test_known_tensor_gives_known_fa_and_md() -> None:
    _, axial, radial = phantom.field((4, 4, 4))
    fa, md = phantom.fa_md(axial, radial)
    found, mask = _fit()
    np.testing.assert_allclose(found.fa[mask], fa[mask], atol=1e-4)
    np.testing.assert_allclose(found.md[mask], md[mask], rtol=1e-4)
    np.testing.assert_allclose(found.ad[mask], axial[mask], rtol=1e-3)


def test_outside_the_mask_is_zero() -> None:
    found, mask = _fit()
    assert not found.fa[~mask].any()
    assert not found.md[~mask].any()
    assert not found.ad[~mask].any()


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_signal_scale_does_not_matter(scale: float) -> None:
    np.testing.assert_allclose(_fit(scale)[0].fa, _fit()[0].fa, atol=1e-4)


def test_rotating_gradients_and_tensor_together_does_not_matter() -> None:
    along, axial, radial = phantom.field((3, 3, 3))
    bvals, bvecs = phantom.gradients((1000, 12))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    mask = np.ones((3, 3, 3), dtype=bool)
    maps = [
        tensor.fit(
            phantom.signal(phantom.tensors(along @ r.T, axial, radial), bvals, bvecs @ r.T),
            bvals,
            bvecs @ r.T,
            mask,
            1300,
        )
        for r in (np.eye(3), turn)
    ]
    np.testing.assert_allclose(maps[0].fa, maps[1].fa, atol=1e-4)


def test_free_water_has_fa_0_and_a_stick_fa_near_1() -> None:
    bvals, bvecs = phantom.gradients((1000, 15))
    along = np.broadcast_to([1.0, 0, 0], (2, 1, 1, 3))
    axial, radial = np.array([3e-3, 2e-3])[:, None, None], np.array([3e-3, 1e-7])[:, None, None]
    dwi = phantom.signal(phantom.tensors(along, axial, radial), bvals, bvecs)
    found = tensor.fit(dwi, bvals, bvecs, np.ones((2, 1, 1), dtype=bool), 1300)
    assert found.fa[0, 0, 0] < 1e-3
    assert found.fa[1, 0, 0] > 0.999
    assert found.md[0, 0, 0] == pytest.approx(3e-3, rel=1e-3)


def test_too_few_volumes_below_the_limit_is_told() -> None:
    with pytest.raises(UserError, match=r"raise derive\.max_bvalue"):
        _fit(max_bvalue=900)


def test_the_fit_gives_dipys_numbers() -> None:
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    from cohort.simulation.acquisition import camcan_scheme

    scheme = camcan_scheme()
    rng = np.random.default_rng(0)
    # Random tensors with eigenvalues of tissue, Rician noise at SNR 25.
    shape = (8, 8, 8)
    axes = np.linalg.qr(rng.normal(size=(*shape, 3, 3)))[0]
    values = rng.uniform(0.2e-3, 1.8e-3, size=(*shape, 3))
    tensors = np.einsum("...ij,...j,...kj->...ik", axes, values, axes)
    decay = np.einsum("vi,...ij,vj->...v", scheme.bvecs, tensors, scheme.bvecs) * scheme.bvals
    noise = rng.normal(scale=4, size=(2, *decay.shape))
    dwi = np.hypot(100 * np.exp(-decay) + noise[0], noise[1]).astype(np.float32)
    mask = np.ones(shape, dtype=bool)
    found = tensor.fit(dwi, scheme.bvals, scheme.bvecs, mask, max_bvalue=1300)
    keep = scheme.bvals <= 1300
    table = gradient_table(scheme.bvals[keep], bvecs=scheme.bvecs[keep])
    expected = TensorModel(table, fit_method="WLS").fit(dwi[..., keep], mask=mask)
    np.testing.assert_allclose(found.fa, np.clip(expected.fa, 0, 1), atol=2e-3)
    np.testing.assert_allclose(np.median(np.abs(found.fa - expected.fa)), 0, atol=1e-5)
    np.testing.assert_allclose(found.md, expected.md, atol=1e-6)
    np.testing.assert_allclose(np.median(np.abs(found.ad - expected.ad)), 0, atol=1e-8)
    np.testing.assert_allclose(found.ad, expected.ad, atol=1e-4)
