"""Nobody crosses; every subset has the ages and sexes of the whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cohort.derivatives import Participant
from cohort.split import SUBSETS, Manifest, SplitSettings, split, table
from contracts import bids
from contracts.errors import UserError

SETTINGS = SplitSettings(seed=0, val=0.15, test=0.25)


def _people(count: int, group: str = "base", seed: int = 0) -> list[Participant]:
    random = np.random.default_rng(seed)
    return [
        Participant(f"sub-{group}{i:03d}", float(random.uniform(18, 88)), "FM"[i % 2], group, "n/a")
        for i in range(count)
    ]


COHORT = [*_people(144), *_people(60, "target", seed=1)]


def _ids(manifest: Manifest) -> list[str]:
    return [s for subsets in manifest.groups.values() for ids in subsets.values() for s in ids]


@pytest.mark.parametrize("seed", range(5))
def test_everyone_is_in_exactly_one_subset(seed: int) -> None:
    manifest = split(COHORT, SplitSettings(seed, 0.15, 0.25))
    assert sorted(_ids(manifest)) == sorted(p.id for p in COHORT)
    assert manifest.crossing() == ()


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_kept_in_each_group(seed: int) -> None:
    manifest = split(COHORT, SplitSettings(seed, 0.15, 0.25))
    for group, count in (("base", 144), ("target", 60)):
        assert len(manifest.subjects(group, "val")) == round(0.15 * count)
        assert len(manifest.subjects(group, "test")) == round(0.25 * count)


@pytest.mark.parametrize("seed", range(5))
def test_ages_and_sexes_are_balanced(seed: int) -> None:
    people = {p.id: p for p in COHORT}
    manifest = split(COHORT, SplitSettings(seed, 0.15, 0.25))
    for subset in SUBSETS:
        ids = manifest.subjects("base", subset)
        ages = np.array([people[i].age for i in ids])
        women = np.mean([people[i].sex == "F" for i in ids])
        assert abs(women - 0.5) <= 0.06
        assert abs(ages.mean() - np.mean([p.age for p in COHORT[:144]])) < 4
        # No stretch of ages is left out of a subset.
        assert np.histogram(ages, bins=4, range=(18, 88))[0].min() >= len(ids) / 4 * 0.6


def test_row_order_does_not_matter_and_the_seed_does() -> None:
    shuffled = [COHORT[i] for i in np.random.default_rng(3).permutation(len(COHORT))]
    assert split(shuffled, SETTINGS) == split(COHORT, SETTINGS)
    assert split(COHORT, SplitSettings(1, 0.15, 0.25)).groups != split(COHORT, SETTINGS).groups


def test_one_group_does_not_depend_on_the_other() -> None:
    alone = split(COHORT[:144], SETTINGS)
    assert alone.groups["base"] == split(COHORT, SETTINGS).groups["base"]


def _subset_of(manifest: Manifest) -> dict[str, str]:
    return {
        scan: subset
        for subsets in manifest.groups.values()
        for subset, ids in subsets.items()
        for scan in ids
    }


@pytest.mark.parametrize("seed", range(5))
def test_sessions_of_a_subject_stay_together(seed: int) -> None:
    people = [
        Participant(f"{p.id}_ses-{s}", p.age + s, p.sex, p.group, p.site)
        for p in _people(40)
        for s in range(1 + int(p.id[-1]) % 3)
    ]
    subset = _subset_of(split(people, SplitSettings(seed, 0.2, 0.2)))
    assert len(subset) == len(people)
    by_subject: dict[str, set[str]] = {}
    for scan, name in subset.items():
        by_subject.setdefault(bids.subject_of(scan), set()).add(name)
    assert all(len(subsets) == 1 for subsets in by_subject.values())
    assert set(subset.values()) == set(SUBSETS)


@pytest.mark.parametrize("seed", range(5))
def test_families_stay_together_even_across_groups(seed: int) -> None:
    people = [*_people(30), *_people(30, "target", seed=1)]
    families = {p.id: f"f{i % 20}" for i, p in enumerate(people)}
    subset = _subset_of(split(people, SplitSettings(seed, 0.2, 0.2), families))
    for family in set(families.values()):
        assert len({subset[s] for s, f in families.items() if f == family}) == 1


def test_a_person_in_two_families_joins_them() -> None:
    people = [Participant(f"sub-{i}_ses-{s}", 30, "F", "base", "") for i in "123" for s in "ab"]
    families = {"sub-1_ses-a": "x", "sub-2_ses-a": "x", "sub-2_ses-b": "y", "sub-3_ses-a": "y"}
    subset = _subset_of(split([*people, *_people(30)], SETTINGS, families))
    assert len({subset[p.id] for p in people}) == 1


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1))])
def test_small_groups(count: int, expected: Sequence[int]) -> None:
    subsets = split(_people(count), SETTINGS).groups["base"]
    assert tuple(len(subsets[subset]) for subset in SUBSETS) == expected


def test_written_and_read_back_is_the_same(tmp_path: Path) -> None:
    manifest = split(COHORT, SETTINGS)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(manifest.to_json()))
    again = Manifest.read(path)
    assert again == manifest
    assert again.digest == manifest.digest
    assert split(COHORT[1:], SETTINGS).digest != manifest.digest


def _content(train: list[str], test: list[str]) -> str:
    groups = {
        "base": {"train": train, "val": [], "test": []},
        "target": {"train": [], "val": [], "test": test},
    }
    return json.dumps({"seed": 0, "groups": groups})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_content(["sub-1", "sub-1"], []), "sub-1 in more than one subset"),
        (_content(["sub-1"], ["sub-1"]), "sub-1 in more than one subset"),
        (_content(["sub-1_ses-a"], ["sub-1_ses-b"]), "sub-1 in more than one subset"),
        ("{}", "is no split"),
        ("[", "is no split"),
    ],
)
def test_a_manifest_in_which_someone_crosses_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        Manifest.read(path)


def test_missing_manifest_and_unknown_group_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro split"):
        Manifest.read(tmp_path / "split.json")
    with pytest.raises(UserError, match="no group 'tagret'"):
        split(COHORT, SETTINGS).subjects("tagret", "train")


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (-0.1, 0.2)])
def test_impossible_shares_are_refused(val: float, test: float) -> None:
    with pytest.raises(ValueError, match="together below 1"):
        SplitSettings(0, val, test)


def test_table_counts_everyone() -> None:
    lines = table(split(COHORT, SETTINGS), COHORT).splitlines()[1:]
    assert sum(int(line.split()[2]) for line in lines) == len(COHORT)
