"""The stage `split`: which subjects are for training, validation and testing."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cohort.derivatives import Participant, read_participants
from cohort.participants import read_families
from cohort.stage_output import hint, write_whole
from contracts import bids, paths
from contracts.console import command
from contracts.errors import UserError
from contracts.params import load

SUBSETS = ("train", "val", "test")
# A subject changes places with at most this many neighbours in age. That is enough for seeds to
# differ, and few enough for every subset to keep the ages of the whole.
_SHUFFLE = 4


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """Section `split` of params.yaml.

    Parameters
    ----------
    seed : seed of the random order.
    val, test : share of each group's subjects for validation and test; the rest is for training.
    """

    seed: int
    val: float
    test: float

    def __post_init__(self) -> None:
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise ValueError("expected val and test of at least 0 and together below 1")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The split of a cohort.

    Parameters
    ----------
    seed : seed that the split was made with.
    groups : scan ids by group (base, target) and subset (train, val, test).
    """

    seed: int
    groups: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what the stage wrote.

        Raises
        ------
        UserError : if the file is missing or unreadable, or a subject is in two subsets.
        """
        if not path.exists():
            raise UserError(f"no split in {path}: {hint('split', path)}")
        try:
            content = json.loads(path.read_text())
            groups = {
                group: {subset: tuple(subsets[subset]) for subset in SUBSETS}
                for group, subsets in content["groups"].items()
            }
            manifest = cls(int(content["seed"]), groups)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no split ({error!r}): run `dvc repro -f split`") from error
        if crossing := manifest.crossing():
            raise UserError(f"{path}: {', '.join(crossing)} in more than one subset: split again")
        return manifest

    def subjects(self, group: str, subset: str) -> tuple[str, ...]:
        """Return the scan ids of a subset; a UserError if there is no such group."""
        if group not in self.groups:
            raise UserError(
                f"the split has no group '{group}': expected one of {', '.join(self.groups)}; "
                "name the groups in the column `group` of participants.tsv"
            )
        return self.groups[group][subset]

    def crossing(self) -> tuple[str, ...]:
        """Return the subjects with scans in more than one subset, whatever their group."""
        places: dict[str, set[str]] = defaultdict(set)
        scans: Counter[str] = Counter()
        for subsets in self.groups.values():
            for subset, ids in subsets.items():
                scans.update(ids)
                for scan in ids:
                    places[bids.subject_of(scan)].add(subset)
        twice = {bids.subject_of(scan) for scan, count in scans.items() if count > 1}
        return tuple(sorted(twice | {s for s, where in places.items() if len(where) > 1}))

    @property
    def digest(self) -> str:
        """A short hash of the seed and of who is in which subset."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object, which `read` reads."""
        groups = {
            group: {subset: list(ids) for subset, ids in subsets.items()}
            for group, subsets in self.groups.items()
        }
        return {"seed": self.seed, "groups": groups}


def split(
    participants: Iterable[Participant],
    settings: SplitSettings,
    families: Mapping[str, str] | None = None,
) -> Manifest:
    """Divide each group by subject, with similar ages and sexes in every subset.

    A subject's sessions and the members of a family go to the same subset, whatever their
    groups. The result depends on ids, ages, sexes, groups, families and settings only, and not
    on the order of `participants`.

    Parameters
    ----------
    families : label of the family by scan id, where it is known.
    """
    units = _units(participants, families or {})
    by_group: dict[str, list[Sequence[Participant]]] = defaultdict(list)
    for unit in units:
        by_group[unit[0].group].append(unit)
    placed: dict[str, dict[str, list[str]]] = {}
    for members in by_group.values():
        for unit, subset in _divide(members, settings):
            for p in unit:
                placed.setdefault(p.group, {name: [] for name in SUBSETS})[subset].append(p.id)
    return Manifest(
        settings.seed,
        {
            group: {subset: tuple(sorted(ids)) for subset, ids in subsets.items()}
            for group, subsets in sorted(placed.items())
        },
    )


def _units(
    participants: Iterable[Participant], families: Mapping[str, str]
) -> list[Sequence[Participant]]:
    """Return groups of participants that must stay together, by subject and by family."""
    ordered = sorted(participants, key=lambda p: p.id)
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for p in ordered:
        subject = find(f"subject/{bids.subject_of(p.id)}")
        if p.id in families:
            leader[find(f"family/{families[p.id]}")] = subject
    units: dict[str, list[Participant]] = defaultdict(list)
    for p in ordered:
        units[find(f"subject/{bids.subject_of(p.id)}")].append(p)
    return list(units.values())


def _divide(
    units: Sequence[Sequence[Participant]], settings: SplitSettings
) -> Iterable[tuple[Sequence[Participant], str]]:
    """Assign units to subsets.

    Units come in the order of sex and age, and each goes to the subset that is furthest behind
    its share.
    """
    quota = _quota(sum(map(len, units)), settings)
    total = sum(quota.values())
    given = dict.fromkeys(SUBSETS, 0)
    seen = 0
    for unit in _ordered(units, settings.seed):
        seen += len(unit)
        unfilled = [name for name in SUBSETS if given[name] < quota[name]] or ["train"]
        subset = max(unfilled, key=lambda name: quota[name] * seen / total - given[name])
        given[subset] += len(unit)
        yield unit, subset


def _quota(count: int, settings: SplitSettings) -> dict[str, int]:
    """Return the number of scans per subset: the shares, rounded.

    Where there are at least three scans, no subset with a share is empty.
    """
    wanted = {"val": settings.val, "test": settings.test}
    quota = {subset: round(count * share) for subset, share in wanted.items()}
    if count >= len(SUBSETS):
        quota = {subset: max(n, int(wanted[subset] > 0)) for subset, n in quota.items()}
    else:
        quota = dict.fromkeys(wanted, 0)
    return {"train": count - sum(quota.values()), **quota}


def _ordered(units: Sequence[Sequence[Participant]], seed: int) -> list[Sequence[Participant]]:
    """Return the units by sex and age, with neighbours shuffled by a hash of seed and id."""
    in_order: list[Sequence[Participant]] = []
    for sex in ("F", "M"):
        of_sex = [unit for unit in units if unit[0].sex == sex]
        of_sex.sort(key=lambda unit: (unit[0].age, unit[0].id))
        places = [i + _SHUFFLE * _uniform(unit[0].id, seed) for i, unit in enumerate(of_sex)]
        in_order += [of_sex[i] for i in sorted(range(len(of_sex)), key=places.__getitem__)]
    return in_order


def _uniform(scan: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}/{scan}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def table(manifest: Manifest, participants: Iterable[Participant]) -> str:
    """Return number of scans, mean age and share of women of each subset, as lines of text."""
    people = {p.id: p for p in participants}
    lines = [f"{'group':8} {'subset':6} {'n':>5} {'age':>6} {'women':>6}"]
    for group, subsets in manifest.groups.items():
        for subset, ids in subsets.items():
            ages = [people[i].age for i in ids]
            women = sum(people[i].sex == "F" for i in ids)
            mean = f"{sum(ages) / len(ages):6.1f} {women / len(ages):6.0%}" if ages else ""
            lines.append(f"{group:8} {subset:6} {len(ids):5d} {mean}".rstrip())
    return "\n".join(lines)


@command()
def main() -> None:
    """Write data/split.json; settings are `split` of params.yaml."""
    settings = load(SplitSettings, "split")
    participants = read_participants(paths.DERIVATIVES)
    if not participants:
        raise UserError(
            f"{paths.DERIVATIVES} has no participants: {hint('derive', paths.DERIVATIVES)}"
        )
    manifest = split(participants, settings, read_families(paths.DERIVATIVES))
    write_whole(paths.SPLIT, json.dumps(manifest.to_json(), indent=1) + "\n")
    click.echo(table(manifest, participants))


if __name__ == "__main__":
    main()
