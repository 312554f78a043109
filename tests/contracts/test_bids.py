"""Names of BIDS: what is written can be read back from the name."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts import bids
from contracts.maps import ALL_MAPS, FA, MD
from contracts.space import mni_space

SPACE = mni_space(4)


def test_names_are_those_of_the_standard() -> None:
    assert bids.dwi_name("sub-01_ses-pre") == "sub-01_ses-pre_dwi.nii.gz"
    assert bids.dwi_name("sub-01", run=2) == "sub-01_run-2_dwi.nii.gz"
    assert bids.map_name("sub-01", SPACE, FA) == (
        "sub-01_space-MNI152NLin2009aSym_res-4_model-tensor_param-fa_dwimap.nii.gz"
    )
    assert bids.map_name("sub-01", None, MD) == "sub-01_model-tensor_param-md_dwimap.nii.gz"
    assert bids.mask_name("sub-01", SPACE) == (
        "sub-01_space-MNI152NLin2009aSym_res-4_desc-brain_mask.nii.gz"
    )
    assert bids.mask_name("sub-01", None) == "sub-01_desc-brain_mask.nii.gz"


@pytest.mark.parametrize("zoom_mm", [4, 2, 1])
def test_entities_of_a_map_s_name_are_read_back(zoom_mm: int) -> None:
    space = mni_space(zoom_mm)
    names = {bids.map_name("sub-x1_ses-b", space, spec) for spec in ALL_MAPS}
    assert len(names) == len(ALL_MAPS)
    for name in names:
        assert bids.entity(name, "sub") == "x1"
        assert bids.entity(name, "ses") == "b"
        assert bids.entity(name, "space") == bids.space_label(space)
        assert bids.entity(name, "res") == str(zoom_mm)
        assert bids.entity(name, "run") is None


def test_a_word_that_ends_like_an_entity_is_none() -> None:
    assert bids.entity("presub-01_dwi.nii.gz", "sub") is None


@pytest.mark.parametrize(
    ("subject", "session", "scan"),
    [("sub-01", None, "sub-01"), ("sub-01", "", "sub-01"), ("sub-01", "pre", "sub-01_ses-pre")],
)
def test_a_scan_s_id_tells_its_subject(subject: str, session: str | None, scan: str) -> None:
    assert bids.scan_id(subject, session) == scan
    assert bids.subject_of(scan) == subject


def test_a_session_has_a_folder_in_raw_data_and_none_in_derivatives() -> None:
    root = Path("data")
    assert bids.raw_folder(root, "sub-01", None) == root / "sub-01" / "dwi"
    assert bids.raw_folder(root, "sub-01", "a") == root / "sub-01" / "ses-a" / "dwi"
    assert bids.derivatives_folder(root, "sub-01_ses-a") == root / "sub-01_ses-a" / "dwi"


@pytest.mark.parametrize("text", ["CC110033", "sub-CC110033", " CC_110033 ", "CC-110033"])
def test_a_subject_s_label_has_letters_and_digits_only(text: str) -> None:
    assert bids.subject_label(text) == "sub-CC110033"


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_files_beside_an_image_share_its_stem(ending: str) -> None:
    image = Path("a.b") / f"sub-1_run-1.2_dwi{ending}"
    assert bids.is_nifti(image.name)
    assert bids.stem(image) == "sub-1_run-1.2_dwi"
    assert bids.sidecar(image) == image.with_name("sub-1_run-1.2_dwi.json")
    assert bids.sibling(image, ".bval") == image.with_name("sub-1_run-1.2_dwi.bval")
    assert not bids.is_nifti("sub-1_dwi.json")
