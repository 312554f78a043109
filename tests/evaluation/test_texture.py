"""Texture: what is one piece, what is not."""

from __future__ import annotations

import numpy as np

from cohort.regression import design
from evaluation.comparison import Comparison
from evaluation.texture import Expectation, measures
from evaluation.volume_set import VolumeSet
from tests.evaluation.people import MAPS, people


def _expectation(cohort: VolumeSet) -> Expectation:
    return Expectation.fit(cohort.volumes, cohort.conditions, MAPS)


def _with_residual(expectation: Expectation, cohort: VolumeSet, residual: np.ndarray) -> np.ndarray:
    """Volumes that deviate by `residual` (n, maps, X, Y, Z) spreads."""
    out = cohort.volumes.copy()
    for i, person in enumerate(cohort.conditions):
        expected = np.tensordot(design([person])[0], expectation.coefficients, axes=1)
        inside = expected + expectation.spread * residual[i][:, expectation.mask]
        for k, spec in enumerate(MAPS):
            out[i, k][expectation.mask] = spec.from_network(inside[k].astype(np.float32))
    return out


def test_noise_is_incoherent_and_a_shift_of_the_whole_is_coherent() -> None:
    real = people(40, 1)
    expectation = _expectation(real)
    few = real.take(range(4))
    rng = np.random.default_rng(0)
    noise = _with_residual(expectation, few, rng.standard_normal(few.volumes.shape))
    assert np.abs(expectation.coherence(noise, few.conditions)).max() < 0.05
    offsets = np.array([-1.0, -0.5, 0.5, 1.0])[:, None, None, None, None]
    shift = _with_residual(expectation, few, np.broadcast_to(offsets, few.volumes.shape))
    np.testing.assert_allclose(expectation.coherence(shift, few.conditions), 1, atol=1e-4)


def test_a_fault_that_all_share_does_not_count() -> None:
    real = people(40, 4)
    expectation = _expectation(real)
    few = real.take(range(6))
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal(few.volumes.shape)
    plain, biased = (
        expectation.coherence(_with_residual(expectation, few, noise + bias), few.conditions)
        for bias in (0.0, 1.0)
    )
    np.testing.assert_allclose(plain, biased, atol=1e-3)


def test_slices_drawn_one_by_one_are_unlike_along_their_axis_only() -> None:
    real = people(40, 2)
    expectation = _expectation(real)
    few = real.take(range(6))
    rng = np.random.default_rng(0)
    per_slice = rng.standard_normal((6, 2, 1, 1, few.volumes.shape[-1]))
    volumes = _with_residual(expectation, few, np.broadcast_to(per_slice, few.volumes.shape))
    found = expectation.coherence(volumes, few.conditions)
    assert found[:, :, :2].min() > 0.99
    assert np.abs(found[:, :, 2].mean()) < 0.3


def test_differences_are_of_the_known_size() -> None:
    rng = np.random.default_rng(0)
    coherence = rng.normal(0.8, 0.01, (40, 2, 3))
    spectrum = rng.normal(0.0, 0.01, (40, 2, 12))
    coherence[:20, 0, 2] -= 0.3
    spectrum[:20, :, :6] += 0.2
    answer = Comparison(20, 20).answer("fidelity", measures(coherence, spectrum, MAPS), {})
    likeness = answer.finding("slice_coherence")
    assert "FA axial" in likeness.label
    assert abs(likeness.value + 0.3) < 0.03
    # Less what regroupings of such unlike groups differ by, which is not nothing.
    assert 0.8 < answer.finding("spectrum_error").value < 1.0
    assert answer.verdict == "not measured"


def test_real_people_do_not_differ_from_real_people() -> None:
    pool = people(60, 3)
    train, one, other = (pool.take(range(a, a + 20)) for a in (0, 20, 40))
    expectation = _expectation(train)
    values = np.concatenate([expectation.coherence(c.volumes, c.conditions) for c in (one, other)])
    spectrum = np.zeros((40, 2, 12))
    answer = Comparison(20, 20).answer("fidelity", measures(values, spectrum, MAPS), {})
    details = answer.finding("slice_coherence").details
    assert sum(low <= 0 <= high for _, low, high in details.values()) >= len(details) - 1
