"""The stage `derive` on ready maps: values, units, AD and grids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort.derivatives import Derivatives
from contracts.errors import UserError
from tests.cohort import phantom
from tests.cohort.small_scans import (
    FOUR,
    SPACE,
    ball,
    derive_all,
    diffusivities,
    ready_maps,
)

pytestmark = pytest.mark.usefixtures("spheres")


def test_ready_maps_with_ad(tmp_path: Path) -> None:
    settings = replace(ready_maps(tmp_path / "bids" / "maps", md_factor=1e3), maps=FOUR)
    with pytest.raises(UserError, match=r"no AD map beside sub-1_.*set derive\.maps"):
        derive_all(settings, tmp_path)
    _, axial, radial = diffusivities(0)
    (beside,) = (tmp_path / "bids").rglob("*param-md*.nii.gz")
    path = beside.with_name(beside.name.replace("param-md", "param-AD"))
    phantom.write_map(path, radial.astype(np.float32) * np.float32(1e3), SPACE.matrix)
    with pytest.raises(UserError, match="is it the largest eigenvalue"):
        derive_all(settings, tmp_path)
    phantom.write_map(path, axial.astype(np.float32) * np.float32(1e3), SPACE.matrix)
    assert derive_all(settings, tmp_path) == {"sub-1": "pass"}
    found, inside = Derivatives.open(tmp_path / "out"), ball(60)
    _, _, ad, rd = found.load(["sub-1"], found.maps)[0]
    np.testing.assert_allclose(ad[inside], axial[inside], rtol=1e-5)
    np.testing.assert_allclose(rd[inside], radial[inside], rtol=1e-5)
    (sidecar,) = (tmp_path / "out").rglob("*param-ad*.json")
    assert json.loads(sidecar.read_text())["Units"] == "mm^2/s"


def test_ready_maps_on_the_grid_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = ready_maps(tmp_path / "bids" / "maps")
    assert derive_all(settings, tmp_path) == {"sub-1": "pass"}
    found = Derivatives.open(tmp_path / "out")
    fa, md = phantom.fa_md(*diffusivities(0)[1:])
    maps, inside = found.load(["sub-1"])[0], ball(60)
    np.testing.assert_array_equal(maps[0], np.where(inside, fa, 0).astype(np.float32))
    np.testing.assert_array_equal(maps[1], np.where(inside, md, 0).astype(np.float32))
    assert found.participants[0].group == "target"
    atlas = found.atlas()
    assert atlas is not None
    assert atlas[1] == {1: "ball"}
    assert json.loads((tmp_path / "out" / "dataset_description.json").read_text())["Simulated"]


def test_units_of_ready_maps_are_converted_and_told(tmp_path: Path) -> None:
    settings = ready_maps(tmp_path / "bids" / "maps", md_factor=1e3)
    derive_all(settings, tmp_path)
    _, md = phantom.fa_md(*diffusivities(0)[1:])
    inside = ball(60)
    found = Derivatives.open(tmp_path / "out").load(["sub-1"])[0, 1]
    np.testing.assert_allclose(found[inside], md[inside], rtol=1e-5)
    assert "um^2/ms" in (tmp_path / "out" / "qc.tsv").read_text()


def test_maps_at_another_resolution_are_not_resampled(tmp_path: Path) -> None:
    settings = ready_maps(tmp_path / "bids" / "maps")
    for path in (tmp_path / "bids").rglob("sub-*.nii.gz"):
        image = nib.load(path)
        phantom.write_map(path, np.asarray(image.dataobj)[1:], image.affine)
    with pytest.raises(UserError, match=r"set derive\.resolution_mm"):
        derive_all(settings, tmp_path)
