"""What is found in the folders of different tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cohort.importer import DwiScan, MapScan, find_scans, scan_id
from contracts.errors import UserError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _dwi(root: Path, name: str, directions: int = 6) -> None:
    _touch(root, name)
    bval = root / name.replace(".nii.gz", ".bval")
    np.savetxt(bval, np.array([[0.0] + [1000.0] * directions]))


@pytest.mark.parametrize(
    ("fa", "md", "expected"),
    [
        # BEP016, QSIRecon, our own
        (
            "sub-01/dwi/sub-01_space-ACPC_model-tensor_param-fa_dwimap.nii.gz",
            "sub-01/dwi/sub-01_space-ACPC_model-tensor_param-md_dwimap.nii.gz",
            "sub-01",
        ),
        (
            "sub-01/ses-pre/dwi/sub-01_ses-pre_model-DTI_param-FA_dwimap.nii.gz",
            "sub-01/ses-pre/dwi/sub-01_ses-pre_model-DTI_param-MD_dwimap.nii.gz",
            "sub-01",
        ),
        ("sub-01/dwi/sub-01_map-FA.nii.gz", "sub-01/dwi/sub-01_map-MD.nii.gz", "sub-01"),
        # FSL dtifit in a folder per subject
        ("subj07/dti_FA.nii.gz", "subj07/dti_MD.nii.gz", "sub-subj07"),
        ("subj07/dtifit/dti_FA.nii.gz", "subj07/dtifit/dti_MD.nii.gz", "sub-subj07"),
        # flat folders, TBSS
        ("subj07_FA.nii", "subj07_MD.nii", "sub-subj07"),
        ("FA/subj07_FA.nii.gz", "MD/subj07_MD.nii.gz", "sub-subj07"),
        # CamCAN's aa pipeline and its users
        (
            "aamod_dti_00001/CC110033/FA/x_FA.nii.gz",
            "aamod_dti_00001/CC110033/MD/x_MD.nii.gz",
            "sub-CC110033",
        ),
        ("CC110033/dti/FA.nii.gz", "CC110033/dti/MD.nii.gz", "sub-CC110033"),
    ],
)
def test_ready_maps(tmp_path: Path, fa: str, md: str, expected: str) -> None:
    _touch(tmp_path, fa, md)
    (scan,) = find_scans(tmp_path).scans
    assert isinstance(scan, MapScan)
    assert (scan.id, scan.fa, scan.md) == (expected, tmp_path / fa, tmp_path / md)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sub-01/dwi/sub-01_dwi.nii.gz", "sub-01"),
        ("sub-01/ses-1/dwi/sub-01_ses-1_dir-AP_dwi.nii.gz", "sub-01"),
        ("dwi/sub-CC110033/dwi/sub-CC110033_dwi.nii.gz", "sub-CC110033"),  # CamCAN
        ("sub-CC110033/dwi/sub-CC110033_dwi.nii.gz", "sub-CC110033"),  # its dwi folder alone
        ("sub-01/dwi/sub-01_space-ACPC_desc-preproc_dwi.nii.gz", "sub-01"),  # QSIPrep
    ],
)
def test_series(tmp_path: Path, name: str, expected: str) -> None:
    _dwi(tmp_path, name)
    (scan,) = find_scans(tmp_path).scans
    assert isinstance(scan, DwiScan)
    assert (scan.id, scan.series) == (expected, tmp_path / name)


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (
            "sub-01/dwi",
            [f"sub-01_model-tensor_param-{p}_dwimap.nii.gz" for p in ("fa", "md", "ad")],
        ),
        ("subj07", ["dti_FA.nii.gz", "dti_MD.nii.gz", "dti_L1.nii.gz"]),
        ("", ["FA/s7_FA.nii.gz", "MD/s7_MD.nii.gz", "AD/s7_AD.nii.gz"]),
        ("AD/sub-3", ["sub-3_FA.nii.gz", "sub-3_MD.nii.gz", "sub-3_AD.nii.gz"]),  # a diagnosis
    ],
)
def test_ad_beside_ready_maps(tmp_path: Path, folder: str, names: list[str]) -> None:
    paths = [tmp_path / folder / name for name in names]
    _touch(tmp_path, *(str(p.relative_to(tmp_path)) for p in paths))
    (scan,) = find_scans(tmp_path).scans
    assert isinstance(scan, MapScan)
    assert [scan.fa, scan.md, scan.ad] == paths
    paths[2].unlink()
    (scan,) = find_scans(tmp_path).scans
    assert isinstance(scan, MapScan)
    assert scan.ad is None


def test_ad_alone_is_no_scan(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-1_AD.nii.gz", "sub-1_L1.nii.gz")
    found = find_scans(tmp_path)
    assert (found.scans, found.notes) == ((), ())


def test_colour_maps_and_other_suffixes_are_no_maps(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-1_colFA.nii.gz", "sub-1_colMD.nii.gz", "sub-1_T1w.nii.gz", "sub-1_FA.txt")
    assert find_scans(tmp_path).scans == ()


def test_sessions_keep_their_name_where_a_subject_has_several(tmp_path: Path) -> None:
    for scan in ("sub-01_ses-a", "sub-01_ses-b", "sub-02_ses-a"):
        subject, session = scan.split("_")
        _dwi(tmp_path, f"{subject}/{session}/dwi/{scan}_dwi.nii.gz")
    assert [s.id for s in find_scans(tmp_path).scans] == ["sub-01_ses-a", "sub-01_ses-b", "sub-02"]


def test_of_several_runs_the_one_with_most_weighted_volumes(tmp_path: Path) -> None:
    _dwi(tmp_path, "sub-01/dwi/sub-01_dir-PA_dwi.nii.gz", directions=0)
    _dwi(tmp_path, "sub-01/dwi/sub-01_dir-AP_dwi.nii.gz", directions=30)
    found = find_scans(tmp_path)
    (scan,) = found.scans
    assert isinstance(scan, DwiScan)
    assert "dir-AP" in scan.series.name
    assert "2 DWI series" in found.notes[0]


def test_ready_maps_come_before_series_and_derivatives_are_no_raw_series(tmp_path: Path) -> None:
    _dwi(tmp_path, "sub-01/dwi/sub-01_dwi.nii.gz")
    _dwi(tmp_path, "derivatives/x/sub-01/dwi/sub-01_desc-preproc_dwi.nii.gz", directions=60)
    (scan,) = find_scans(tmp_path).scans
    assert isinstance(scan, DwiScan)
    assert "derivatives" not in scan.series.parts
    _touch(tmp_path, "derivatives/x/sub-01/dwi/sub-01_FA.nii.gz")
    _touch(tmp_path, "derivatives/x/sub-01/dwi/sub-01_MD.nii.gz")
    assert isinstance(find_scans(tmp_path).scans[0], MapScan)


def test_tensor_maps_in_the_scans_own_space_are_preferred(tmp_path: Path) -> None:
    for label in (
        "space-MNI152NLin2009cAsym_model-tensor",
        "space-ACPC_model-dki",
        "space-ACPC_model-tensor",
    ):
        _touch(tmp_path, *(f"sub-1/sub-1_{label}_param-{p}_dwimap.nii.gz" for p in ("fa", "md")))
    found = find_scans(tmp_path)
    (scan,) = found.scans
    assert isinstance(scan, MapScan)
    assert scan.fa.name == "sub-1_space-ACPC_model-tensor_param-fa_dwimap.nii.gz"
    assert "3 pairs" in found.notes[0]


def test_fa_without_md_is_told(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-1_FA.nii.gz", "sub-2_FA.nii.gz", "sub-2_MD.nii.gz")
    found = find_scans(tmp_path)
    assert [s.id for s in found.scans] == ["sub-2"]
    assert "sub-1" in found.notes[0]


def test_masks_beside_and_by_hand(tmp_path: Path) -> None:
    source, masks = tmp_path / "in", tmp_path / "Masks"
    for subject in ("a", "b"):
        _touch(source, *(f"{subject}_{name}.nii.gz" for name in ("FA", "MD", "mask")))
    _touch(source, "c/dti_FA.nii.gz", "c/dti_MD.nii.gz", "c/nodif_brain_mask.nii.gz")
    _touch(masks, "sub-b_desc-brain_mask.nii.gz")
    found = {s.id: s.mask for s in find_scans(source, masks).scans}
    assert found["sub-a"] == source / "a_mask.nii.gz"
    assert found["sub-b"] == masks / "sub-b_desc-brain_mask.nii.gz"
    assert found["sub-c"] == source / "c" / "nodif_brain_mask.nii.gz"


def test_a_mask_of_another_space_is_not_taken(tmp_path: Path) -> None:
    _touch(tmp_path, "sub-1_space-T1w_desc-brain_mask.nii.gz")
    _dwi(tmp_path, "sub-1_dwi.nii.gz")
    assert find_scans(tmp_path).scans[0].mask is None


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set derive\.source"):
        find_scans(tmp_path / "nothing")


def test_a_name_that_tells_no_subject_takes_the_root_folder(tmp_path: Path) -> None:
    root = tmp_path / "anna"
    _touch(root, "dti/FA.nii.gz")
    assert scan_id(root / "dti" / "FA.nii.gz", root) == "sub-anna"
