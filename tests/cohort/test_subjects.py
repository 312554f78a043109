"""The subjects of a part of the split: found, hashed, read and encoded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort import channels
from cohort.subjects import SubjectFiles, load
from contracts.errors import UserError
from contracts.maps import MAPS
from tests.cohort.tiny import tiny_volumes, write_cohort


def find(data: Path, part: str = "train", sites: bool = False) -> SubjectFiles:
    return SubjectFiles.find(data / "derivatives", data / "split.json", "base", part, sites)


def written(data: Path, subjects: int = 12, sites: tuple[str, ...] = ("one",)) -> SubjectFiles:
    write_cohort(data, subjects, sites)
    return find(data)


def test_volumes_masks_and_conditions_are_those_on_disk(tmp_path: Path) -> None:
    write_cohort(tmp_path, 12)
    found = load(tmp_path / "derivatives", tmp_path / "split.json", "base", "train")
    volumes, masks, people = tiny_volumes(12)
    np.testing.assert_array_equal(found.volumes, volumes)
    np.testing.assert_array_equal(found.masks, masks)
    assert [c.sex for c in found.conditions] == [c.sex for c in people]
    assert [c.age for c in found.conditions] == [round(c.age, 1) for c in people]
    assert found.maps == MAPS
    assert found.digest == find(tmp_path).digest
    np.testing.assert_array_equal(found.encoded(), channels.encode(volumes, masks, MAPS))


def test_encoded_files_hold_what_memory_would(tmp_path: Path) -> None:
    part = written(tmp_path)
    whole = part.load()
    encoded = part.encoded(tmp_path / "work")
    assert isinstance(encoded, np.memmap)
    np.testing.assert_array_equal(encoded, whole.encoded())
    np.testing.assert_array_equal(channels.brain(encoded), whole.masks)


def test_the_encoded_file_is_kept_and_belongs_to_its_subjects(tmp_path: Path) -> None:
    part, work = written(tmp_path), tmp_path / "work"

    def kept() -> list[Path]:
        return list(work.glob("*.npy"))

    part.encoded(work)
    part.encoded(work)
    assert len(kept()) == 1
    replace(part, digest="another").encoded(work)
    assert len(kept()) == 2


def test_the_digest_follows_volumes_conditions_and_sites(tmp_path: Path) -> None:
    first = written(tmp_path, sites=("a", "b"))
    assert written(tmp_path, sites=("a", "b")).digest == first.digest
    with_sites = find(tmp_path, sites=True)
    assert [c.site for c in with_sites.conditions] == ["a", "b"] * 6
    assert {c.site for c in first.conditions} == {None}
    assert with_sites.digest != first.digest
    table = tmp_path / "derivatives" / "participants.tsv"
    table.write_text(table.read_text().replace("\t18.0\t", "\t18.1\t"))
    older = find(tmp_path)
    assert older.digest != first.digest
    files = sorted(first.cohort.root.rglob("*_dwimap.nii.gz"))
    files[0].write_bytes(files[1].read_bytes())
    assert find(tmp_path).digest != older.digest


def test_a_missing_volume_is_told(tmp_path: Path) -> None:
    part = written(tmp_path)
    sorted(part.cohort.root.rglob("*_dwimap.nii.gz"))[0].unlink()
    with pytest.raises(UserError, match=r"no such volume: .*sub-0000"):
        find(tmp_path)


def test_too_few_or_no_subjects_are_told(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(UserError, match="no subjects in base-val: raise its share"):
        find(tmp_path, "val")
    split = tmp_path / "split.json"
    content = json.loads(split.read_text())
    content["groups"]["base"]["train"] = content["groups"]["base"]["train"][:7]
    split.write_text(json.dumps(content))
    with pytest.raises(UserError, match="7 subjects in base-train, at least 8"):
        find(tmp_path)


def test_subjects_of_other_sites_are_left_out(tmp_path: Path) -> None:
    write_cohort(tmp_path, 12, ("north", "south", "east"))
    found = find(tmp_path, sites=True).of_sites(("north", "east"))
    assert {c.site for c in found.conditions} == {"north", "east"}
    assert len(found.ids) == 8
    assert found.digest != find(tmp_path, sites=True).digest


def test_a_part_without_subjects_may_be_asked_for(tmp_path: Path) -> None:
    write_cohort(tmp_path, 12)
    found = SubjectFiles.find_any(tmp_path / "derivatives", tmp_path / "split.json", "base", "val")
    assert found.ids == ()
