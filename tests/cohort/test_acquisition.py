"""The simulated scanner: scheme, signal and noise."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cohort import tensor
from cohort.simulation.acquisition import (
    FREE_WATER,
    SCANNER_A,
    SCANNER_B,
    Compartment,
    camcan_scheme,
    rician,
    signal,
)


def _compartment(fraction: float, fa: float, md: float, count: int = 5) -> Compartment:
    directions = np.random.default_rng(1).normal(size=(count, 3))
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Compartment(
        np.full(count, fraction, np.float32),
        np.full(count, fa, np.float32),
        np.full(count, md, np.float32),
        unit.astype(np.float32),
    )


def test_scheme_is_three_unweighted_and_two_shells_of_thirty_unit_vectors() -> None:
    scheme = camcan_scheme()
    assert [int((scheme.bvals == b).sum()) for b in (0, 1000, 2000)] == [3, 30, 30]
    lengths = np.linalg.norm(scheme.bvecs[scheme.bvals > 0], axis=1)
    np.testing.assert_allclose(lengths, 1)
    assert len(scheme.up_to(1300).bvals) == 33


def test_directions_cover_the_sphere_evenly() -> None:
    shell = camcan_scheme().up_to(1300).bvecs[3:]
    # Even directions average their dyads to a third of the identity.
    np.testing.assert_allclose(shell.T @ shell / len(shell), np.eye(3) / 3, atol=0.02)


@pytest.mark.parametrize(("fa", "md"), [(0.2, 0.7), (0.5, 0.8), (0.8, 0.75)])
def test_fit_of_pure_white_matter_returns_its_fa_and_md(fa: float, md: float) -> None:
    white, grey = _compartment(1, fa, md), _compartment(0, 0.1, 0.8)
    scheme = camcan_scheme()
    one = np.ones(5, np.float32)
    volumes = signal(white, grey, 0 * one, one, SCANNER_A, scheme)[:, None, None]
    mask = np.ones((5, 1, 1), dtype=np.bool_)
    found = tensor.fit(volumes, scheme.bvals, scheme.bvecs, mask, 1300)
    np.testing.assert_allclose(found.fa, fa, atol=1e-3)
    np.testing.assert_allclose(found.md, md * 1e-3, atol=1e-6)


def test_fluid_diffuses_freely() -> None:
    none = _compartment(0, 0.1, 0.8)
    scheme = camcan_scheme()
    one = np.ones(5, np.float32)
    found = signal(none, none, one, one, SCANNER_B, scheme)
    expected = np.exp(-FREE_WATER * scheme.bvals / 1000)
    np.testing.assert_allclose(found / found[:, :1], np.tile(expected, (5, 1)), rtol=1e-4)


def test_noise_has_the_level_of_the_site_and_voxel() -> None:
    clean = np.full((20000, 1), 1000, np.float32)
    for zoom_mm, snr in ((2.0, SCANNER_A.snr), (4.0, SCANNER_A.snr * 8**0.5)):
        noisy = rician(clean, SCANNER_A, zoom_mm, (3,))
        assert noisy.std() == pytest.approx(1000 / snr, rel=0.03)
        # Rician magnitude of a strong signal: mean is about signal + variance / (2 signal).
        assert noisy.mean() == pytest.approx(1000 + 500 / snr**2, rel=2e-3)


def test_a_volume_s_noise_does_not_depend_on_later_volumes() -> None:
    clean = np.full((50, 4), 500, np.float32)
    few = rician(clean[:, :2], SCANNER_A, 2.0, (3,))
    np.testing.assert_array_equal(rician(clean, SCANNER_A, 2.0, (3,))[:, :2], few)


def test_the_noisier_site_is_noisier() -> None:
    clean = np.full((5000, 1), 1000, np.float32)
    quiet = dataclasses.replace(SCANNER_B, snr=SCANNER_A.snr)
    assert rician(clean, SCANNER_B, 2.0, (1,)).std() > rician(clean, quiet, 2.0, (1,)).std()
