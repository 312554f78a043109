"""Real scans of three vendors, from DICOM to the working space, against known-good results."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cohort import dicom, scan_maps
from cohort.derivatives import Derivatives
from cohort.derive import DeriveSettings, derive
from cohort.importer import find_scans
from cohort.scan_maps import ScanMaps
from cohort.units import to_physical
from contracts import volume

DATA = Path(os.environ.get("DTI_TEST_DATA", "../shared/data"))
MAX_BVALUE = 1300

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason=f"no {DATA}: set DTI_TEST_DATA"),
]

# Archive, and the name of its known-good gradients.
ARCHIVES = {
    "canon_classic_dti12": "DTI_AP-ortho_10000",
    "philips_classic_dti15_b2000": "WIP_dti_ax_601",
    "siemens_prisma_mosaic_dti20": "dti_nopf_x2_ortho_2",
    "siemens_xa30_enhanced_dti20_AP": "17_DWI_dir80_AP",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All DICOM archives, converted."""
    out = tmp_path_factory.mktemp("bids")
    dicom.convert(DATA / "dicom", out)
    return out


def _load(folder: Path, subject: str) -> ScanMaps:
    (scan,) = (s for s in find_scans(folder).scans if s.id == subject)
    return scan_maps.load(scan, MAX_BVALUE)


def _label(name: str) -> str:
    return "sub-" + name.replace("_", "")


@pytest.mark.parametrize(("archive", "reference"), ARCHIVES.items())
def test_gradients_are_the_known_good_ones(tree: Path, archive: str, reference: str) -> None:
    subject = _label(archive)
    for ending in ("bval", "bvec"):
        found = np.loadtxt(tree / subject / "dwi" / f"{subject}_dwi.{ending}")
        known = np.loadtxt(DATA / "dicom" / "ref" / f"{reference}.{ending}")
        np.testing.assert_allclose(found, known, atol=2e-6)


def test_only_diffusion_series_are_kept(tree: Path) -> None:
    ids = [scan.id for scan in find_scans(tree).scans]
    assert ids == sorted(_label(name) for name in ARCHIVES)


def _compare(found: ScanMaps, reference: str) -> None:
    folder = DATA / "maps_native"
    mask = found.mask & (volume.read(folder / f"{reference}_desc-brain_mask.nii.gz")[0] > 0)
    assert np.count_nonzero(mask) > 0.8 * np.count_nonzero(found.mask)
    for name, values in found.maps.items():
        known, affine = volume.read(folder / f"{reference}_model-tensor_param-{name}_dwimap.nii.gz")
        np.testing.assert_allclose(found.affine, affine, atol=1e-3)
        assert np.corrcoef(values[mask], known[mask])[0, 1] >= 0.95


def test_fit_of_a_philips_series() -> None:
    _compare(_load(DATA / "dwi", "sub-realphi2021"), "real-phi2021")


def test_fit_of_siemens_mosaics_from_dicom(tree: Path) -> None:
    found = _load(tree, _label("siemens_prisma_mosaic_dti20"))
    assert "b <= 2000" in found.notes[0]
    _compare(found, "real-sie2018")


def test_scanner_maps_are_brought_to_our_units(tree: Path, tmp_path: Path) -> None:
    (packed,) = (DATA / "dicom").glob("siemens_xa30_vendor_maps*")
    (folder,) = dicom._unpacked(packed, tmp_path / "in")
    dicom._dcm2niix(folder, tmp_path / "out")
    images = {
        dicom._header(p)["SeriesDescription"].split("_")[-1]: volume.read(p)[0]
        for p in (tmp_path / "out").glob("*.nii.gz")
    }
    ours = _load(tree, _label("siemens_xa30_enhanced_dti20_AP"))
    scanner = to_physical(images["FA"], images["ADC"], ours.mask)
    assert (scanner.fa_unit, scanner.md_unit) == ("1/1000", "1e-6 mm^2/s")
    inside: NDArray[np.bool_] = ours.mask & (scanner.fa > 0)
    assert np.corrcoef(scanner.fa[inside], ours.maps["fa"][inside])[0, 1] > 0.9
    known = np.median(ours.maps["md"][inside])
    assert np.median(scanner.md[inside]) == pytest.approx(known, rel=0.1)


def test_working_space(tmp_path: Path) -> None:
    source = tmp_path / "dwi"
    source.mkdir()
    for path in (DATA / "dwi").glob("real-*2018_*"):
        (source / path.name).symlink_to(path.resolve())
    (source / "participants.tsv").write_text(
        "participant_id\tage\tsex\nreal-phi2018\t32\tF\nreal-sie2018\t46\tM\n"
    )
    settings = DeriveSettings(str(source), 4, MAX_BVALUE)
    rows = derive(settings, tmp_path / "out", tmp_path / "work", workers=2)
    assert [row.status for row in rows] == ["pass", "pass"]
    assert min(row.white_r for row in rows) > 0.65
    found = Derivatives.open(tmp_path / "out")
    ids = [p.id for p in found.participants]
    fa, md = np.moveaxis(found.load(ids), 1, 0)
    both = found.masks(ids).all(axis=0)
    # Two people on two scanners, aligned: their maps resemble each other.
    assert np.corrcoef(fa[0][both], fa[1][both])[0, 1] > 0.65
    assert np.corrcoef(md[0][both], md[1][both])[0, 1] > 0.6
