"""The stage `derive` a second time: what is taken over, what is not, and what a stop leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from cohort import derive as stage
from cohort.derive import DeriveSettings
from contracts import closure
from tests.cohort.small_scans import (
    add_scan,
    derive_all,
    small_cohort,
)

pytestmark = pytest.mark.usefixtures("spheres")


def test_finished_scans_are_taken_over_and_changed_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1", "sub-2")
    derive_all(settings, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.nii.gz")}
    real, again = stage._derive, []

    def counted(task: stage.ScanTask) -> object:
        again.append(task.scan.id)
        return real(task)

    monkeypatch.setattr(stage, "_derive", counted)
    derive_all(settings, tmp_path)
    assert again == []
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*.nii.gz")} == before
    add_scan(tmp_path / "bids", "sub-2", seed=7)
    derive_all(settings, tmp_path)
    assert again == ["sub-2"]
    derive_all(DeriveSettings(settings.source, 4, 2500), tmp_path)
    assert again == ["sub-2", "sub-1", "sub-2"]
    assert len(list((tmp_path / "work").glob("derive-*"))) == 1


def test_scans_of_other_code_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_cohort(tmp_path / "bids", "sub-1")
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
    settings = small_cohort(tmp_path / "bids", "sub-1")
    derive_all(settings, tmp_path)
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")}
    add_scan(tmp_path / "bids", "sub-1", seed=7)

    def stops(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "write_quality", stops)
    with pytest.raises(KeyboardInterrupt):
        derive_all(settings, tmp_path)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.*")} == before
