"""FA, MD and AD fix a tensor's eigenvalues; AD is kept where the others allow it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.eigenvalues import axial, interval, nearest, radial, shape
from contracts.maps import checked, map_spec

Floats = NDArray[np.float64]
MM2S = 1e-3
# Where a disc is flat, at FA = 0.7071, the interval's end is a root of the rounding of FA.
ROUNDING = 5e-4


def _tensors() -> Floats:
    """Eigenvalues (n, 3), largest first: random ones, sticks, discs, flat ones and balls."""
    rng = np.random.default_rng(0)
    free = rng.exponential(MM2S, (4000, 3))
    a, b = rng.uniform(0.1 * MM2S, 2 * MM2S, (2, 500))
    low, high = np.minimum(a, b), np.maximum(a, b)
    nothing = np.zeros(500)
    made = [free, *(np.stack(rows, axis=1) for rows in (
        (high, low, low), (high, high, low), (high, low, nothing), (a, a, a)))]  # fmt: skip
    return -np.sort(-np.concatenate(made), axis=1)


def _maps(eigenvalues: Floats) -> tuple[NDArray[np.float32], ...]:
    """FA, MD, AD, RD of eigenvalues (n, 3), by their definitions."""
    mean = eigenvalues.mean(axis=1)
    apart = ((eigenvalues - mean[:, None]) ** 2).sum(axis=1)
    fa = np.sqrt(1.5 * apart / (eigenvalues**2).sum(axis=1))
    both = (fa, mean, eigenvalues[:, 0], eigenvalues[:, 1:].mean(axis=1))
    return tuple(values.astype(np.float32) for values in both)


def _eigenvalues(*maps: NDArray[np.float32]) -> Floats:
    """The eigenvalues (n, 3) of the tensor that FA, MD and AD fix."""
    fa, md, ad = (values.astype(np.float64) for values in maps)
    squares = 3 * md**2 / (1 - 2 * fa**2 / 3)
    others = 3 * md - ad
    root = np.sqrt(np.maximum(2 * (squares - ad**2) - others**2, 0))
    return np.stack([ad, (others + root) / 2, (others - root) / 2], axis=1)


def test_radial_is_the_mean_of_the_two_smaller() -> None:
    _, md, ad, rd = _maps(_tensors())
    np.testing.assert_allclose(radial(md, ad), rd, atol=1e-6 * MM2S)


def test_every_tensor_lies_in_its_interval_and_is_left_alone() -> None:
    fa, md, ad, _ = _maps(_tensors())
    low, high = interval(fa, md)
    assert (low <= ad * (1 + ROUNDING)).all()
    assert (ad <= high * (1 + ROUNDING)).all()
    np.testing.assert_allclose(nearest(fa, md, ad), ad, rtol=ROUNDING)


def test_the_ends_of_the_interval_are_sticks_and_discs() -> None:
    one, half = np.float32(1.0), np.float32(0.5)
    stick, disc = (_maps(np.array([v])) for v in ([1.0, half, half], [1.0, 1.0, half]))
    np.testing.assert_allclose(interval(*stick[:2])[1], one, rtol=1e-6)
    np.testing.assert_allclose(interval(*disc[:2])[0], one, rtol=1e-6)
    assert shape(*stick[:3])[0] == pytest.approx(0, abs=2e-3)
    assert shape(*disc[:3])[0] == pytest.approx(1, abs=2e-3)


def test_axial_inverts_shape() -> None:
    fa, md, ad, _ = _maps(_tensors())
    shapes = shape(fa, md, ad)
    assert shapes.min() >= 0
    assert shapes.max() <= 1
    np.testing.assert_allclose(axial(fa, md, shapes), ad, rtol=ROUNDING)


@pytest.mark.parametrize("how", ["shape", "nearest"])
def test_any_value_becomes_a_tensor_of_the_same_fa_and_md(how: str) -> None:
    rng = np.random.default_rng(1)
    fa = rng.uniform(0, 1, 5000).astype(np.float32)
    md = rng.uniform(0, 3.2 * MM2S, 5000).astype(np.float32)
    wild = rng.normal(0.5, 2, 5000).astype(np.float32)
    ad = axial(fa, md, wild) if how == "shape" else nearest(fa, md, wild * np.float32(2 * MM2S))
    found = _eigenvalues(fa, md, ad)
    assert (np.diff(found, axis=1) <= ROUNDING * MM2S).all()
    assert found.min() >= -ROUNDING * MM2S
    again = _maps(np.maximum(found, 0))
    np.testing.assert_allclose(again[0], fa, atol=1e-3)
    np.testing.assert_allclose(again[1], md, rtol=ROUNDING)
    assert (ad >= md * (1 - 1e-6)).all()
    assert (md * (1 + 1e-6) >= radial(md, ad)).all()


def test_ad_falls_from_stick_to_disc() -> None:
    fa, md = np.full((2, 50), [[0.4], [0.8 * MM2S]], dtype=np.float32)
    ad = axial(fa, md, np.linspace(0, 1, 50, dtype=np.float32))
    assert (np.diff(ad) < 0).all()


def test_nothing_stays_nothing() -> None:
    nothing = np.zeros(3, dtype=np.float32)
    assert not axial(nothing, nothing, shape(nothing, nothing, nothing)).any()
    assert not radial(nothing, nothing).any()


def test_a_cohort_has_two_maps_or_four() -> None:
    good: list[tuple[str, ...]] = [("fa", "md"), ("fa", "md", "ad", "rd")]
    for names in good:
        assert checked(names) == names
        assert [map_spec(name.upper()).name for name in names] == list(names)
    others: list[tuple[str, ...]] = [("fa",), ("md", "fa"), ("fa", "md", "ad"), ()]
    for wrong in others:
        with pytest.raises(ValueError, match=r"expected maps \[fa, md\] or \[fa, md, ad, rd\]"):
            checked(wrong)
