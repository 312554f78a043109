"""FA and MD of any tool come out in our units."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cohort.units import to_physical
from contracts import volume
from contracts.errors import UserError

DATA = Path(os.environ.get("DTI_TEST_DATA", "../shared/data"))
Maps = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]


def _brain() -> Maps:
    random = np.random.default_rng(0)
    fa = random.beta(1.5, 5, (12, 12, 12)).astype(np.float32)
    md = random.normal(0.9e-3, 0.2e-3, (12, 12, 12)).astype(np.float32)
    mask = np.zeros((12, 12, 12), dtype=bool)
    mask[2:10, 2:10, 2:10] = True
    return np.where(mask, fa, 0), np.where(mask, np.maximum(md, 1e-4), 0), mask


@pytest.mark.parametrize(
    ("fa_factor", "md_factor", "kind", "units"),
    [
        (1, 1, np.float32, ("1", "mm^2/s")),  # FSL, MRtrix, dipy
        (1, 1e3, np.float32, ("1", "um^2/ms")),  # DSI Studio
        (1000, 1e6, np.int16, ("1/1000", "1e-6 mm^2/s")),  # scanner
        (1000, 1e3, np.float32, ("1/1000", "um^2/ms")),
    ],
)
def test_units_are_found(
    fa_factor: float, md_factor: float, kind: type, units: tuple[str, str]
) -> None:
    fa, md, mask = _brain()
    stored = [
        (v * f).astype(kind).astype(np.float32) for v, f in ((fa, fa_factor), (md, md_factor))
    ]
    found = to_physical(stored[0], stored[1], mask)
    assert (found.fa_unit, found.md_unit) == units
    np.testing.assert_allclose(found.fa, fa, atol=1.1e-3)
    np.testing.assert_allclose(found.md, md, atol=1.1e-6)


def test_impossible_values_are_clipped_and_nan_becomes_unknown() -> None:
    fa, md, mask = _brain()
    fa[5, 5, 5], fa[6, 6, 6], md[7, 7, 7], md[4, 4, 4] = 1.2247, np.nan, -1e-3, np.inf
    found = to_physical(fa, md, mask)
    assert found.fa[5, 5, 5] == 1
    assert not found.known[6, 6, 6]
    assert not found.known[4, 4, 4]
    assert found.md[7, 7, 7] == 0
    assert np.isfinite(found.fa).all()
    assert np.isfinite(found.md).all()


@pytest.mark.parametrize(("fa_factor", "md_factor"), [(1, 30), (1, 1e-3), (50, 1), (0.01, 1)])
def test_values_of_no_known_unit_are_refused(fa_factor: float, md_factor: float) -> None:
    fa, md, mask = _brain()
    with pytest.raises(UserError, match=r"median MD|percentile of FA"):
        to_physical(fa * np.float32(fa_factor), md * np.float32(md_factor), mask)


def test_real_fsl_map_with_fa_above_1() -> None:
    path = DATA / "maps_native" / "fsl_dtifit_FA_max1p22.nii.gz"
    if not path.exists():
        pytest.skip(f"no {path}: set DTI_TEST_DATA")
    fa, _ = volume.read(path)
    assert np.nanmax(fa) > 1.2
    found = to_physical(fa, np.full_like(fa, 0.8e-3), fa > 0)
    assert found.fa_unit == "1"
    assert found.fa.max() == 1
    inside = (fa > 0) & (fa <= 1)
    np.testing.assert_array_equal(found.fa[inside], fa[inside])
