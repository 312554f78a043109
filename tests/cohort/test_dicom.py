"""Real mosaics of a Siemens TrioTim, which nibabel carries, through dcm2niix."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort import dicom
from cohort.importer import find_scans
from contracts import bids
from contracts.errors import UserError

MOSAICS = Path(nib.__file__).parent / "nicom" / "tests" / "data"


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one volume at b = 0 and one at b = 1000."""
    folder = tmp_path_factory.mktemp("series")
    for name in ("siemens_dwi_0.dcm", "siemens_dwi_1000.dcm"):
        with gzip.open(MOSAICS / f"{name}.gz") as packed:
            (folder / name).write_bytes(packed.read())
    return folder


def _statuses(rows: tuple[dicom.Series, ...]) -> dict[str, str]:
    return {row.subject: row.status for row in rows}


@pytest.fixture(scope="module")
def converted(
    series: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, tuple[dicom.Series, ...]]:
    """The same series as folder, zip, tar and in a session, and inputs that are broken."""
    source, out = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    shutil.copytree(series, source / "CC110033" / "scan")
    shutil.copytree(series, source / "two" / "ses-a")
    shutil.copytree(series, source / "two" / "ses-b")
    with zipfile.ZipFile(source / "sub-zip.zip", "w") as archive:
        for path in sorted(series.iterdir()):
            archive.write(path, f"../{path.name}")  # a path that points outside
    with tarfile.open(source / "tar_ses-x.tar.gz", "w:gz") as archive_tar:
        archive_tar.add(series, "deep/series")
    (source / "broken.zip").write_bytes(b"PK no archive")
    (source / "empty").mkdir()
    (source / "short").mkdir()
    content = (series / "siemens_dwi_0.dcm").read_bytes()
    (source / "short" / "a.dcm").write_bytes(content[: len(content) // 2])
    return out, dicom.convert(source, out)


def test_mosaics_become_a_series_with_gradients(
    converted: tuple[Path, tuple[dicom.Series, ...]],
) -> None:
    out, _ = converted
    stem = out / "sub-CC110033" / "dwi" / "sub-CC110033_dwi"
    image = nib.load(stem.with_name(f"{stem.name}.nii.gz"))
    assert image.shape == (128, 128, 48, 2)
    np.testing.assert_array_equal(np.loadtxt(stem.with_suffix(".bval")), [0, 1000])
    bvecs = np.loadtxt(stem.with_suffix(".bvec"))
    np.testing.assert_allclose(np.linalg.norm(bvecs, axis=0), [0, 1], atol=1e-3)


def test_archives_and_sessions_give_the_same_volumes(
    converted: tuple[Path, tuple[dicom.Series, ...]],
) -> None:
    out, _ = converted
    images = sorted(out.glob("sub-*/**/*_dwi.nii.gz"))
    assert [str(p.relative_to(out).parent) for p in images] == [
        "sub-CC110033/dwi",
        "sub-tar/ses-x/dwi",
        "sub-two/ses-a/dwi",
        "sub-two/ses-b/dwi",
        "sub-zip/dwi",
    ]
    values = [np.asarray(nib.load(p).dataobj) for p in images]
    for other in values[1:]:
        np.testing.assert_array_equal(other, values[0])


def test_broken_inputs_are_reported_and_stop_nobody(
    converted: tuple[Path, tuple[dicom.Series, ...]],
) -> None:
    out, rows = converted
    status = _statuses(rows)
    assert status["sub-CC110033"] == status["sub-zip"] == status["sub-tar"] == "converted"
    assert status["sub-broken"] == "failed"
    assert status["sub-empty"] == "skipped"
    assert status["sub-short"] != "converted"
    report = (out / bids.CONVERSION).read_text()
    assert "archive cannot be read" in report
    assert all(row.detail for row in rows if row.status != "converted")


def test_nothing_personal_is_kept(converted: tuple[Path, tuple[dicom.Series, ...]]) -> None:
    out, _ = converted
    for path in out.glob("sub-*/**/*.json"):
        keys = " ".join(json.loads(path.read_text()))
        for word in ("Patient", "Institution", "Station", "UID", "Date", "Serial", "Physician"):
            assert word not in keys


def test_importer_reads_the_tree(converted: tuple[Path, tuple[dicom.Series, ...]]) -> None:
    out, _ = converted
    ids = [scan.id for scan in find_scans(out).scans]
    assert ids == ["sub-CC110033", "sub-tar", "sub-two_ses-a", "sub-two_ses-b", "sub-zip"]


def test_converted_inputs_are_taken_over_and_removed_ones_disappear(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a", "b"):
        shutil.copytree(series, source / name)
    first = dicom.convert(source, out)
    true = dicom._dcm2niix
    monkeypatch.setattr(dicom, "_dcm2niix", None)  # Any call fails.
    assert dicom.convert(source, out) == first
    # What other code converted is converted again.
    with monkeypatch.context() as patch:
        patch.setattr("contracts.closure.digest", lambda *modules: "other")
        assert set(_statuses(dicom.convert(source, out)).values()) == {"failed"}
    monkeypatch.setattr(dicom, "_dcm2niix", true)
    assert dicom.convert(source, out) == first
    monkeypatch.setattr(dicom, "_dcm2niix", None)
    shutil.rmtree(source / "a")
    assert _statuses(dicom.convert(source, out)) == {"sub-b": "converted"}
    assert not (out / "sub-a").exists()


def test_no_folders_and_no_archives_is_told(tmp_path: Path) -> None:
    (tmp_path / "README").touch()
    with pytest.raises(UserError, match="a folder or archive of DICOM files per subject"):
        dicom.convert(tmp_path, tmp_path / "out")
