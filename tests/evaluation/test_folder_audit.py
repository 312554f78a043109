"""An audit of folders, as the command line runs it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from contracts import volume
from evaluation.__main__ import main
from evaluation.results import AuditResult
from evaluation.volume_set import VolumeSet
from tests.evaluation.people import LABELS, SPACE, people


def write(folder: Path, cohort: VolumeSet) -> Path:
    rows = ["participant_id\tage\tsex"]
    for name, maps, person in zip(cohort.ids, cohort.volumes, cohort.conditions, strict=True):
        for k, label in enumerate(("FA", "MD")):
            volume.write(folder / f"{name}_{label}.nii.gz", maps[k], SPACE)
        rows.append(f"{name}\t{person.age:.4f}\t{person.sex}")
    (folder / "participants.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("maps")
    volume.write(root / "atlas.nii.gz", LABELS, SPACE)
    (root / "atlas.txt").write_text("1 back\n2 front part\n")
    sets = {"train": people(30, 1), "test": people(28, 2), "made": people(28, 3)}
    return {"root": root, **{k: write(root / k, v) for k, v in sets.items()}}


def run(folders: dict[str, Path], out: Path, *more: str) -> tuple[str, AuditResult]:
    done = CliRunner().invoke(
        main,
        ["audit", str(folders["made"]), "--train", str(folders["train"]), "--test",
         str(folders["test"]), "--out", str(out), "--shuffles", "100", *more],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return done.output, AuditResult.from_json(json.loads((out / "metrics.json").read_text()))


def test_a_folder_is_audited_and_reported(folders: dict[str, Path], tmp_path: Path) -> None:
    said, audit = run(folders, tmp_path, "--atlas", str(folders["root"] / "atlas.nii.gz"))
    assert audit.failed == ()
    assert audit.n == {"synthetic": 28, "test": 28, "train": 30}
    assert set(audit.answer("anatomy").finding("fa_regions").details) == {"back", "front part"}
    yardsticks = audit.answer("privacy").finding("copy_share").yardsticks
    assert set(yardsticks) == {"real", "gaussian", "copies", "shuffled"}
    assert yardsticks["copies"] > 80
    assert "privacy    pass" in said
    for kind in ("medicalnet", "radimagenet"):
        absent = audit.answer("fidelity").finding(f"{kind}_kernel")
        assert absent.verdict == "not measured"
        assert "no weights given" in absent.label
    assert "made" in (tmp_path / "report.html").read_text()


def test_canaries_are_found(folders: dict[str, Path], tmp_path: Path) -> None:
    _, audit = run(folders, tmp_path, "--canaries", "2")
    found = audit.answer("privacy").finding("near_duplicates")
    assert (found.value, found.verdict) == (2, "fail")
    assert all(name.startswith("canary") for name in found.details)


def test_a_weights_file_that_is_not_there_is_told_before_any_work(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        main,
        ["audit", str(folders["made"]), "--train", str(folders["train"]), "--test",
         str(folders["test"]), "--medicalnet", str(tmp_path / "none.pth")],
    )  # fmt: skip
    assert done.exit_code != 0
    assert done.output.splitlines()[-1].startswith("error: ")
    assert "none.pth" in done.output


def test_maps_on_another_grid_are_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    small = np.zeros((8, 8, 8), dtype=np.float32)
    import nibabel as nib

    other.mkdir()
    for label in ("FA", "MD"):
        nib.save(nib.Nifti1Image(small, np.eye(4)), other / f"a_{label}.nii")
    (other / "participants.tsv").write_text("participant_id\tage\tsex\na\t40\tF\n")
    done = CliRunner().invoke(
        main,
        ["audit", str(other), "--train", str(folders["train"]), "--test", str(folders["test"])],
    )
    assert done.exit_code != 0
    assert done.output.splitlines()[-1].startswith("error: ")
    assert "is not in" in done.output
