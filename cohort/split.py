"""The stage `split`: who is trained on, validated on and tested on."""

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
from cohort.participants import read_families, subject_of
from contracts.console import command
from contracts.errors import UserError
from contracts.params import load

PARTS = ("train", "val", "test")
DERIVATIVES = Path("data/derivatives")
SPLIT = Path("data/split.json")
# How many neighbours in age a person may change places with: enough for seeds to differ, few
# enough for every part to keep the ages of the whole.
_SHUFFLE = 4


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """Section `split`: shares of the subjects of each group; the rest is trained on."""

    seed: int
    val: float
    test: float

    def __post_init__(self) -> None:
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise ValueError("expected val and test of at least 0 and together below 1")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Scans by group (base, target) and part (train, val, test)."""

    seed: int
    groups: Mapping[str, Mapping[str, tuple[str, ...]]]

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what the stage wrote.

        Raises
        ------
        UserError : if the file is missing, unreadable, or a subject is in two parts.
        """
        if not path.exists():
            raise UserError(f"no split in {path}: run `dvc repro split` first")
        try:
            content = json.loads(path.read_text())
            groups = {
                group: {part: tuple(parts[part]) for part in PARTS}
                for group, parts in content["groups"].items()
            }
            manifest = cls(int(content["seed"]), groups)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is no split ({error!r}): run `dvc repro -f split`") from error
        if crossing := manifest.crossing():
            raise UserError(f"{path}: {', '.join(crossing)} in more than one part: split again")
        return manifest

    def subjects(self, group: str, part: str) -> tuple[str, ...]:
        """Ids of one part; a UserError if there is no such group."""
        if group not in self.groups:
            raise UserError(
                f"the split has no group '{group}': expected one of {', '.join(self.groups)}; "
                "name the groups in the column `group` of participants.tsv"
            )
        return self.groups[group][part]

    def crossing(self) -> tuple[str, ...]:
        """Subjects of whom scans are in more than one part, of whichever group."""
        places: dict[str, set[str]] = defaultdict(set)
        scans: Counter[str] = Counter()
        for parts in self.groups.values():
            for part, ids in parts.items():
                scans.update(ids)
                for scan in ids:
                    places[subject_of(scan)].add(part)
        twice = {subject_of(scan) for scan, count in scans.items() if count > 1}
        return tuple(sorted(twice | {s for s, where in places.items() if len(where) > 1}))

    @property
    def digest(self) -> str:
        """Short hash of who is where."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        groups = {g: {p: list(ids) for p, ids in parts.items()} for g, parts in self.groups.items()}
        return {"seed": self.seed, "groups": groups}


def split(
    participants: Iterable[Participant],
    settings: SplitSettings,
    families: Mapping[str, str] | None = None,
) -> Manifest:
    """Divide each group by subject, with the same ages and sexes in every part.

    A subject's sessions and the members of a family go to the same part together, in whichever
    group they are. The result depends neither on the order of `participants` nor on anything but
    ids, ages, sexes, groups, families and settings.

    Parameters
    ----------
    families : scan id -> family label, for those known.
    """
    units = _units(participants, families or {})
    by_group: dict[str, list[Sequence[Participant]]] = defaultdict(list)
    for unit in units:
        by_group[unit[0].group].append(unit)
    placed: dict[str, dict[str, list[str]]] = {}
    for members in by_group.values():
        for unit, part in _divide(members, settings):
            for p in unit:
                placed.setdefault(p.group, {name: [] for name in PARTS})[part].append(p.id)
    return Manifest(
        settings.seed,
        {
            group: {part: tuple(sorted(ids)) for part, ids in parts.items()}
            for group, parts in sorted(placed.items())
        },
    )


def _units(
    participants: Iterable[Participant], families: Mapping[str, str]
) -> list[Sequence[Participant]]:
    """Participants that must stay together: joined by subject and by family."""
    ordered = sorted(participants, key=lambda p: p.id)
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    for p in ordered:
        subject = find(f"subject/{subject_of(p.id)}")
        if p.id in families:
            leader[find(f"family/{families[p.id]}")] = subject
    units: dict[str, list[Participant]] = defaultdict(list)
    for p in ordered:
        units[find(f"subject/{subject_of(p.id)}")].append(p)
    return list(units.values())


def _divide(
    units: Sequence[Sequence[Participant]], settings: SplitSettings
) -> Iterable[tuple[Sequence[Participant], str]]:
    """Walk through the units by sex and age; each goes to the part that lags furthest behind."""
    quota = _quota(sum(map(len, units)), settings)
    total = sum(quota.values())
    given = dict.fromkeys(PARTS, 0)
    seen = 0
    for unit in _ordered(units, settings.seed):
        seen += len(unit)
        open_parts = [part for part in PARTS if given[part] < quota[part]] or ["train"]
        part = max(open_parts, key=lambda name: quota[name] * seen / total - given[name])
        given[part] += len(unit)
        yield unit, part


def _quota(count: int, settings: SplitSettings) -> dict[str, int]:
    """Subjects per part: the shares, rounded; at least one of each where there are three."""
    wanted = {"val": settings.val, "test": settings.test}
    quota = {part: round(count * share) for part, share in wanted.items()}
    if count >= len(PARTS):
        quota = {part: max(n, int(wanted[part] > 0)) for part, n in quota.items()}
    else:
        quota = dict.fromkeys(wanted, 0)
    return {"train": count - sum(quota.values()), **quota}


def _ordered(units: Sequence[Sequence[Participant]], seed: int) -> list[Sequence[Participant]]:
    """Units by sex and age, neighbours shuffled by a hash of seed and id."""
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
    """Scans, mean age and share of women of each part, as lines of text."""
    people = {p.id: p for p in participants}
    lines = [f"{'group':8} {'part':6} {'n':>5} {'age':>6} {'women':>6}"]
    for group, parts in manifest.groups.items():
        for part, ids in parts.items():
            ages = [people[i].age for i in ids]
            women = sum(people[i].sex == "F" for i in ids)
            mean = f"{sum(ages) / len(ages):6.1f} {women / len(ages):6.0%}" if ages else ""
            lines.append(f"{group:8} {part:6} {len(ids):5d} {mean}".rstrip())
    return "\n".join(lines)


@command()
def main() -> None:
    """Write data/split.json; settings are `split` of params.yaml."""
    settings = load(SplitSettings, "split")
    participants = read_participants(DERIVATIVES)
    if not participants:
        raise UserError(f"{DERIVATIVES} has no participants: run `dvc repro derive` first")
    manifest = split(participants, settings, read_families(DERIVATIVES))
    SPLIT.parent.mkdir(parents=True, exist_ok=True)
    SPLIT.write_text(json.dumps(manifest.to_json(), indent=1) + "\n")
    click.echo(table(manifest, participants))


if __name__ == "__main__":
    main()
