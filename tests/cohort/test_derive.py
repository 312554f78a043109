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
from cohort.derivatives import Derivatives, write_description, write_participants
from cohort.derivatives import Participant as P
from cohort.derive import Derive, derive
from cohort.registration import Target
from contracts import closure, volume
from contracts.errors import UserError
from contracts.maps import ALL_MAPS, FA, MD
from contracts.space import Space, mni_space
from tests.cohort import phantom

SPACE = mni_space(4)
FOUR = ("fa", "md", "ad", "rd")


@pytest.fixture(autouse=True)
def target(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target of spheres: no scan here is registered, and real templates take seconds."""

    def spheres(space: Space) -> Target:
        outer, inner = _ball(60), _ball(40)
        return Target(space, outer.astype(np.float32), inner.astype(np.float32), outer)

    monkeypatch.setattr("cohort.registration.load_target", spheres)


def _ball(radius: float) -> np.ndarray:
    return np.asarray((SPACE.centres() ** 2).sum(axis=-1) <= radius**2)


def _diffusivities(seed: int) -> tuple[np.ndarray, ...]:
    """Directions, axial and radial diffusivity: anisotropic white matter in a grey shell."""
    along, axial, radial = phantom.field(SPACE.shape, seed)
    white = _ball(40)
    return along, np.where(white, axial, 0.95e-3), np.where(white, radial, 0.8e-3)


def _add_scan(root: Path, name: str, seed: int) -> Path:
    """A skull-stripped series on the working grid."""
    bvals, bvecs = phantom.gradients((1000, 8), (2000, 6))
    along, axial, radial = _diffusivities(seed)
    values = phantom.signal(phantom.tensors(along, axial, radial), bvals, bvecs)
    values *= _ball(60)[..., None]
    subject, *session = name.split("_")
    path = root.joinpath(subject, *session, "dwi", f"{name}_dwi.nii.gz")
    phantom.write_dwi(path, values, SPACE.matrix, bvals, bvecs, {"SkullStripped": True})
    return path


def _cohort(root: Path, *names: str) -> Derive:
    for seed, name in enumerate(names):
        _add_scan(root, name, seed)
    subjects = sorted({n.split("_")[0] for n in names})
    write_participants(
        root, [P(s, 30 + i, "FM"[i % 2], "base", "A") for i, s in enumerate(subjects)]
    )
    return Derive(str(root), 4, 1300)


def _derive(settings: Derive, folder: Path) -> dict[str, str]:
    rows = derive(settings, folder / "out", folder / "work", folder / "Masks", workers=1)
    return {row.participant_id: row.status for row in rows}


def test_closed_loop_known_tensors_to_derivatives(tmp_path: Path) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1", "sub-2")
    assert _derive(settings, tmp_path) == {"sub-1": "pass", "sub-2": "pass"}
    found = Derivatives.open(tmp_path / "out")
    assert found.space == SPACE
    assert [(p.id, p.age, p.sex) for p in found.participants] == [
        ("sub-1", 30, "F"),
        ("sub-2", 31, "M"),
    ]
    inside = _ball(60)
    np.testing.assert_array_equal(found.masks(["sub-1"])[0], inside)
    for seed, subject in enumerate(("sub-1", "sub-2")):
        fa, md = phantom.fa_md(*_diffusivities(seed)[1:])
        maps = found.load([subject], (FA, MD))[0]
        np.testing.assert_allclose(maps[0][inside], fa[inside], atol=2e-3)
        np.testing.assert_allclose(maps[1][inside], md[inside], rtol=2e-3)
        assert not maps[:, ~inside].any()


def test_sidecar_tells_how_and_native_maps_are_kept(tmp_path: Path) -> None:
    _derive(_cohort(tmp_path / "bids", "sub-1"), tmp_path)
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
    settings = _cohort(tmp_path / "bids", "sub-1", "sub-2")
    harm(tmp_path / "bids" / "sub-2" / "dwi" / "sub-2_dwi.nii.gz")
    assert _derive(settings, tmp_path) == {"sub-1": "pass", "sub-2": "failed"}
    assert [p.id for p in Derivatives.open(tmp_path / "out").participants] == ["sub-1"]
    assert reason in (tmp_path / "out" / "qc.tsv").read_text()


def test_someone_without_age_is_left_out_and_told(tmp_path: Path) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1")
    _add_scan(tmp_path / "bids", "sub-9", seed=9)
    assert _derive(settings, tmp_path) == {"sub-1": "pass", "sub-9": "left out"}
    assert "no age" in (tmp_path / "out" / "qc.tsv").read_text()


def test_if_nothing_can_be_derived_the_reason_is_told(tmp_path: Path) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1")
    (tmp_path / "bids" / "sub-1" / "dwi" / "sub-1_dwi.bvec").unlink()
    with pytest.raises(UserError, match=r"none of 1 scans.*sub-1_dwi\.bvec"):
        _derive(settings, tmp_path)


def test_finished_scans_are_taken_over_and_changed_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1", "sub-2")
    _derive(settings, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.nii.gz")}
    real, again = stage._derive, []

    def counted(task: stage.ScanTask) -> object:
        again.append(task.scan.id)
        return real(task)

    monkeypatch.setattr(stage, "_derive", counted)
    _derive(settings, tmp_path)
    assert again == []
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.nii.gz")} == before
    _add_scan(tmp_path / "bids", "sub-2", seed=7)
    _derive(settings, tmp_path)
    assert again == ["sub-2"]
    _derive(Derive(settings.source, 4, 2500), tmp_path)
    assert again == ["sub-2", "sub-1", "sub-2"]
    assert len(list((tmp_path / "work").glob("derive-*"))) == 1


def test_scans_of_other_code_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1")
    before = stage.recipe_hash(settings)
    monkeypatch.setattr("contracts.closure.digest", lambda *modules: f"other {modules}")
    assert stage.recipe_hash(settings) != before


@pytest.mark.parametrize(
    "module",
    ["cohort.tensor", "cohort.scan_maps", "cohort.dicom", "contracts.maps", "contracts.bids"],
)
def test_the_key_of_finished_scans_covers_what_derives_them(module: str) -> None:
    covered = closure.files("cohort.derive")
    assert closure.module_files()[module] in covered


def test_a_stop_while_the_output_is_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1")
    _derive(settings, tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    _add_scan(tmp_path / "bids", "sub-1", seed=7)

    def stops(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "write_quality", stops)
    with pytest.raises(KeyboardInterrupt):
        _derive(settings, tmp_path)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")} == before


def test_sessions_are_scans_of_their_own(tmp_path: Path) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1_ses-a", "sub-1_ses-b", "sub-2_ses-a")
    assert set(_derive(settings, tmp_path)) == {"sub-1_ses-a", "sub-1_ses-b", "sub-2"}
    assert Derivatives.open(tmp_path / "out").load(["sub-1_ses-b"]).shape == (1, 2, *SPACE.shape)


def test_a_mask_by_hand_overrules(tmp_path: Path) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1")
    by_hand = tmp_path / "Masks" / "sub-1_mask.nii.gz"
    phantom.write_map(by_hand, _ball(50).astype(np.uint8), SPACE.matrix)
    _derive(settings, tmp_path)
    np.testing.assert_array_equal(Derivatives.open(tmp_path / "out").masks(["sub-1"])[0], _ball(50))


def test_ad_and_rd_come_with_the_tensor_where_they_are_asked_for(tmp_path: Path) -> None:
    settings = replace(_cohort(tmp_path / "bids", "sub-1"), maps=FOUR)
    assert _derive(settings, tmp_path) == {"sub-1": "pass"}
    found, inside = Derivatives.open(tmp_path / "out"), _ball(60)
    assert found.maps == ALL_MAPS
    _, axial, radial = _diffusivities(0)
    _, md, ad, rd = found.load(["sub-1"], found.maps)[0]
    np.testing.assert_allclose(ad[inside], axial[inside], rtol=5e-3)
    np.testing.assert_allclose(rd[inside], radial[inside], rtol=5e-3)
    np.testing.assert_allclose(ad + 2 * rd, 3 * md, atol=1e-8)
    native = tmp_path / "out" / "native" / "sub-1" / "dwi"
    assert len(list(native.glob("*_param-[ar]d_dwimap.nii.gz"))) == 2
    assert "FA, MD, AD and RD" in (tmp_path / "out" / "dataset_description.json").read_text()


def test_two_maps_stay_the_same_beside_the_two_others(tmp_path: Path) -> None:
    settings = _cohort(tmp_path / "bids", "sub-1")
    for name, asked in (("two", settings), ("four", replace(settings, maps=FOUR))):
        _derive(asked, tmp_path / name)
    two, four = (
        {p.name: p.read_bytes() for p in (tmp_path / n / "out" / "sub-1").rglob("*.*")}
        for n in ("two", "four")
    )
    assert two.items() <= four.items()
    assert len(two) == 5
    assert len(four) == 9
    assert Derivatives.open(tmp_path / "two" / "out").maps == (FA, MD)


def test_ready_maps_with_ad(tmp_path: Path) -> None:
    settings = replace(_ready(tmp_path / "bids" / "maps", md_factor=1e3), maps=FOUR)
    with pytest.raises(UserError, match=r"no AD map beside sub-1_.*set derive\.maps"):
        _derive(settings, tmp_path)
    _, axial, radial = _diffusivities(0)
    (beside,) = (tmp_path / "bids").rglob("*param-md*.nii.gz")
    path = beside.with_name(beside.name.replace("param-md", "param-AD"))
    phantom.write_map(path, radial.astype(np.float32) * np.float32(1e3), SPACE.matrix)
    with pytest.raises(UserError, match="is it the largest eigenvalue"):
        _derive(settings, tmp_path)
    phantom.write_map(path, axial.astype(np.float32) * np.float32(1e3), SPACE.matrix)
    assert _derive(settings, tmp_path) == {"sub-1": "pass"}
    found, inside = Derivatives.open(tmp_path / "out"), _ball(60)
    _, _, ad, rd = found.load(["sub-1"], found.maps)[0]
    np.testing.assert_allclose(ad[inside], axial[inside], rtol=1e-5)
    np.testing.assert_allclose(rd[inside], radial[inside], rtol=1e-5)
    (sidecar,) = (tmp_path / "out").rglob("*param-ad*.json")
    assert json.loads(sidecar.read_text())["Units"] == "mm^2/s"


def _ready(root: Path, md_factor: float = 1.0, kind: type = np.float32) -> Derive:
    """Ready maps on the working grid, with what comes beside them."""
    fa, md = phantom.fa_md(*_diffusivities(0)[1:])
    inside = _ball(60)
    stem = root / "sub-1" / "dwi" / f"sub-1_space-{SPACE.name}"
    for name, values in (("fa", fa), ("md", md * md_factor)):
        path = stem.with_name(f"{stem.name}_model-tensor_param-{name}_dwimap.nii.gz")
        phantom.write_map(path, (values * inside).astype(kind), SPACE.matrix)
    mask = stem.with_name(f"{stem.name}_desc-brain_mask.nii.gz")
    phantom.write_map(mask, inside.astype(np.uint8), SPACE.matrix)
    write_participants(root.parent, [P("sub-1", 50, "F", "target", "B")])
    write_description(root.parent, "Toy", True, "test")
    volume.write(root / "atlas_dseg.nii.gz", inside.astype(np.int16), SPACE)
    (root / "atlas_dseg.tsv").write_text("index\tname\n1\tball\n")
    return Derive(str(root), 4, 1300)


def test_ready_maps_on_the_grid_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = _ready(tmp_path / "bids" / "maps")
    assert _derive(settings, tmp_path) == {"sub-1": "pass"}
    found = Derivatives.open(tmp_path / "out")
    fa, md = phantom.fa_md(*_diffusivities(0)[1:])
    maps, inside = found.load(["sub-1"])[0], _ball(60)
    np.testing.assert_array_equal(maps[0], np.where(inside, fa, 0).astype(np.float32))
    np.testing.assert_array_equal(maps[1], np.where(inside, md, 0).astype(np.float32))
    assert found.participants[0].group == "target"
    atlas = found.atlas()
    assert atlas is not None
    assert atlas[1] == {1: "ball"}
    assert json.loads((tmp_path / "out" / "dataset_description.json").read_text())["Simulated"]


def test_units_of_ready_maps_are_converted_and_told(tmp_path: Path) -> None:
    settings = _ready(tmp_path / "bids" / "maps", md_factor=1e3)
    _derive(settings, tmp_path)
    _, md = phantom.fa_md(*_diffusivities(0)[1:])
    inside = _ball(60)
    found = Derivatives.open(tmp_path / "out").load(["sub-1"])[0, 1]
    np.testing.assert_allclose(found[inside], md[inside], rtol=1e-5)
    assert "um^2/ms" in (tmp_path / "out" / "qc.tsv").read_text()


def test_maps_at_another_resolution_are_not_resampled(tmp_path: Path) -> None:
    settings = _ready(tmp_path / "bids" / "maps")
    for path in (tmp_path / "bids").rglob("sub-*.nii.gz"):
        image = nib.load(path)
        phantom.write_map(path, np.asarray(image.dataobj)[1:], image.affine)
    with pytest.raises(UserError, match=r"set derive\.resolution_mm"):
        _derive(settings, tmp_path)


def test_command_reads_params_and_ends_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _cohort(Path("bids"), "sub-1", "sub-2")
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
