"""From known tensors to derivatives, and what happens on the way when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from cohort import derive as stage
from cohort.derivatives import Derivatives
from contracts.errors import UserError
from contracts.maps import ALL_MAPS, FA, MD
from tests.cohort import phantom
from tests.cohort.small_scans import (
    FOUR,
    SPACE,
    add_scan,
    ball,
    derive_all,
    diffusivities,
    small_cohort,
)

pytestmark = pytest.mark.usefixtures("spheres")


def test_closed_loop_known_tensors_to_derivatives(tmp_path: Path) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1", "sub-2")
    assert derive_all(settings, tmp_path) == {"sub-1": "pass", "sub-2": "pass"}
    found = Derivatives.open(tmp_path / "out")
    assert found.space == SPACE
    assert [(p.id, p.age, p.sex) for p in found.participants] == [
        ("sub-1", 30, "F"),
        ("sub-2", 31, "M"),
    ]
    inside = ball(60)
    np.testing.assert_array_equal(found.masks(["sub-1"])[0], inside)
    for seed, subject in enumerate(("sub-1", "sub-2")):
        fa, md = phantom.fa_md(*diffusivities(seed)[1:])
        maps = found.load([subject], (FA, MD))[0]
        np.testing.assert_allclose(maps[0][inside], fa[inside], atol=2e-3)
        np.testing.assert_allclose(maps[1][inside], md[inside], rtol=2e-3)
        assert not maps[:, ~inside].any()


def test_sidecar_tells_how_and_native_maps_are_kept(tmp_path: Path) -> None:
    derive_all(small_cohort(tmp_path / "bids", "sub-1"), tmp_path)
    folder = tmp_path / "out" / "sub-1" / "dwi"
    (sidecar,) = folder.glob("*param-md*.json")
    content = json.loads(sidecar.read_text())
    assert content["Units"] == "mm^2/s"
    assert content["BValues"] == [1000]
    assert content["VolumesUsed"] == {"Unweighted": 1, "Weighted": 8}
    assert {"FitMethod", "Mask", "Registration", "Sources"} <= content.keys()
    native = tmp_path / "out" / "native" / "sub-1" / "dwi"
    image = nib.load(native / "sub-1_model-tensor_param-fa_dwimap.nii.gz")
    assert int(image.header["sform_code"]) == 1
    np.testing.assert_allclose(image.affine, SPACE.matrix)
    assert (native / "sub-1_desc-brain_mask.nii.gz").exists()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "cut short"),
        (lambda p: p.with_name("sub-2_dwi.bval").unlink(), "no sub-2_dwi.bval"),
        (lambda p: p.with_name("sub-2_dwi.json").write_text("{"), "no valid JSON"),
    ],
)
def test_a_bad_subject_is_told_and_costs_nobody_else(
    tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1", "sub-2")
    harm(tmp_path / "bids" / "sub-2" / "dwi" / "sub-2_dwi.nii.gz")
    assert derive_all(settings, tmp_path) == {"sub-1": "pass", "sub-2": "failed"}
    assert [p.id for p in Derivatives.open(tmp_path / "out").participants] == ["sub-1"]
    assert reason in (tmp_path / "out" / "qc.tsv").read_text()


def test_someone_without_age_is_left_out_and_told(tmp_path: Path) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1")
    add_scan(tmp_path / "bids", "sub-9", seed=9)
    assert derive_all(settings, tmp_path) == {"sub-1": "pass", "sub-9": "left out"}
    assert "no age" in (tmp_path / "out" / "qc.tsv").read_text()


def test_if_nothing_can_be_derived_the_reason_is_told(tmp_path: Path) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1")
    (tmp_path / "bids" / "sub-1" / "dwi" / "sub-1_dwi.bvec").unlink()
    with pytest.raises(UserError, match=r"none of 1 scans.*sub-1_dwi\.bvec"):
        derive_all(settings, tmp_path)


def test_sessions_are_scans_of_their_own(tmp_path: Path) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1_ses-a", "sub-1_ses-b", "sub-2_ses-a")
    assert set(derive_all(settings, tmp_path)) == {"sub-1_ses-a", "sub-1_ses-b", "sub-2"}
    assert Derivatives.open(tmp_path / "out").load(["sub-1_ses-b"]).shape == (1, 2, *SPACE.shape)


def test_a_mask_by_hand_overrules(tmp_path: Path) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1")
    by_hand = tmp_path / "Masks" / "sub-1_mask.nii.gz"
    phantom.write_map(by_hand, ball(50).astype(np.uint8), SPACE.matrix)
    derive_all(settings, tmp_path)
    np.testing.assert_array_equal(Derivatives.open(tmp_path / "out").masks(["sub-1"])[0], ball(50))


def test_ad_and_rd_come_with_the_tensor_where_they_are_asked_for(tmp_path: Path) -> None:
    settings = replace(small_cohort(tmp_path / "bids", "sub-1"), maps=FOUR)
    assert derive_all(settings, tmp_path) == {"sub-1": "pass"}
    found, inside = Derivatives.open(tmp_path / "out"), ball(60)
    assert found.maps == ALL_MAPS
    _, axial, radial = diffusivities(0)
    _, md, ad, rd = found.load(["sub-1"], found.maps)[0]
    np.testing.assert_allclose(ad[inside], axial[inside], rtol=5e-3)
    np.testing.assert_allclose(rd[inside], radial[inside], rtol=5e-3)
    np.testing.assert_allclose(ad + 2 * rd, 3 * md, atol=1e-8)
    native = tmp_path / "out" / "native" / "sub-1" / "dwi"
    assert len(list(native.glob("*_param-[ar]d_dwimap.nii.gz"))) == 2
    assert "FA, MD, AD and RD" in (tmp_path / "out" / "dataset_description.json").read_text()


def test_two_maps_stay_the_same_beside_the_two_others(tmp_path: Path) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1")
    for name, asked in (("two", settings), ("four", replace(settings, maps=FOUR))):
        derive_all(asked, tmp_path / name)
    two, four = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "out" / "sub-1").rglob("*.*")}
        for n in ("two", "four")
    )
    assert two.items() <= four.items()
    assert len(two) == 5
    assert len(four) == 9
    assert Derivatives.open(tmp_path / "two" / "out").maps == (FA, MD)


def test_command_reads_params_and_ends_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small_cohort(Path("bids"), "sub-1", "sub-2")
    Path("bids/sub-2/dwi/sub-2_dwi.bval").unlink()
    Path("params.yaml").write_text("derive: {source: bids, resolution_mm: 4, max_bvalue: 1300}\n")
    result = CliRunner().invoke(stage.main, ["--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "data/derivatives: 1 pass, 1 failed" in result.stdout
    assert "failed: sub-2: no sub-2_dwi.bval" in result.stderr


def test_command_tells_a_missing_source_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("derive: {source: none, resolution_mm: 4, max_bvalue: 1300}\n")
    result = CliRunner().invoke(stage.main)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "set derive.source" in result.stderr


def test_command_refuses_a_list_of_maps_that_no_cohort_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "derive: {source: bids, resolution_mm: 4, max_bvalue: 1300, maps: [fa, md, rd]}\n"
    Path("params.yaml").write_text(text)
    result = CliRunner().invoke(stage.main)
    assert result.exit_code == 2
    assert "expected maps [fa, md] or [fa, md, ad, rd], found [fa, md, rd]" in result.stderr
