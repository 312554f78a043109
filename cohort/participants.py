"""Who was scanned: age, sex, group, site and family, from a lab's own tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cohort.derivatives import COLUMNS, PARTICIPANTS, Participant
from contracts.condition import condition
from contracts.errors import UserError

# In order of preference; the last is the name of older CamCAN releases.
TABLES = (PARTICIPANTS, "participants.csv", "standard_data.csv")
GROUPS = ("base", "target")
FAMILY = "family"
# How far above the source folder a table may lie, e.g. data/bids for
# data/bids/derivatives/<pipeline>.
_LEVELS_UP = 3
# Column names, lower case, in order of preference.
_NAMES = {
    "id": ("participant_id", "ccid", "subject_id", "subject"),
    "age": ("age", "age_at_scan"),
    "sex": ("sex", "gender_text", "gender", "gender_code"),
    "group": ("group",),
    "site": ("site",),
    "family": (FAMILY, "family_id"),
}
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
# CamCAN's gender_code. Elsewhere 1 and 2 are not understood: not everyone codes men as 1.
_SEX_CODES = {"1": "M", "2": "F"}
_MISSING = ("", "n/a", "na", "nan", "none")


@dataclass(frozen=True, slots=True)
class Person:
    """What a table says of one person; None where it says nothing."""

    age: str | None = None
    sex: str | None = None
    group: str | None = None
    site: str | None = None
    family: str | None = None

    def or_else(self, other: Person) -> Person:
        """This person, with gaps filled from `other`."""
        mine = (getattr(self, f.name) for f in fields(Person))
        theirs = (getattr(other, f.name) for f in fields(Person))
        return Person(*(a if a is not None else b for a, b in zip(mine, theirs, strict=True)))


@dataclass(frozen=True, slots=True)
class Roll:
    """Participants that can be used, why others cannot, and families of more than one."""

    participants: tuple[Participant, ...]
    left_out: Mapping[str, str]
    families: Mapping[str, str]


def subject_label(text: str) -> str:
    """A subject's BIDS label: ``CC110033``, ``sub-CC110033`` -> ``sub-CC110033``."""
    return "sub-" + re.sub(r"[^A-Za-z0-9]", "", text.strip().removeprefix("sub-"))


def subject_of(scan: str) -> str:
    """The subject of a scan id: ``sub-01_ses-pre`` -> ``sub-01``."""
    return scan.split("_ses-")[0]


def find_table(source: Path) -> Path | None:
    """The nearest table in `source` or the folders above it."""
    source = source.resolve()
    for folder in (source, *source.parents[:_LEVELS_UP]):
        for name in TABLES:
            if (folder / name).is_file():
                return folder / name
    return None


def read_table(path: Path) -> dict[str, Person]:
    """People by subject label.

    Raises
    ------
    UserError : if no column names the subject.
    """
    people: dict[str, Person] = {}
    for row in _rows(path):
        values = {key: _first(row, names) for key, names in _NAMES.items()}
        identity = values.pop("id")
        if identity is not None:
            found = Person(**values)
            label = subject_label(identity)
            people[label] = people[label].or_else(found) if label in people else found
    return people


def read_sessions(source: Path) -> dict[str, Person]:
    """Ages by scan id from BIDS ``sub-*/sub-*_sessions.tsv``: people age between sessions."""
    people: dict[str, Person] = {}
    for path in sorted(source.glob("sub-*/sub-*_sessions.tsv")):
        for row in _rows(path, needed=("session_id",)):
            session, age = row.get("session_id"), _first(row, _NAMES["age"])
            if session and age is not None:
                people[f"{path.parent.name}_ses-{session.removeprefix('ses-')}"] = Person(age=age)
    return people


def enrol(scans: Iterable[str], tables: Sequence[Mapping[str, Person]]) -> Roll:
    """Participants for `scans`; of several tables, an earlier one overrules a later one.

    A scan whose age, sex or group is missing or not understood is left out, with the reason.
    """
    accepted, left_out, families = [], {}, {}
    for scan in sorted(scans):
        person = Person()
        for table in tables:
            for key in (scan, subject_of(scan)):
                person = person.or_else(table.get(key, Person()))
        try:
            accepted.append(_participant(scan, person))
        except UserError as error:
            left_out[scan] = str(error)
            continue
        if person.family is not None:
            families[scan] = person.family
    return Roll(tuple(accepted), left_out, families)


def _participant(scan: str, person: Person) -> Participant:
    for name in ("age", "sex"):
        if getattr(person, name) is None:
            raise UserError(f"no {name}: add it to {PARTICIPANTS}")
    try:
        age = float(str(person.age))
    except ValueError:
        raise UserError(f"age '{person.age}' is not a number of years") from None
    group = person.group or GROUPS[0]
    if group not in GROUPS:
        raise UserError(f"group '{group}' is not {' or '.join(GROUPS)}")
    checked = condition(age, str(person.sex))
    return Participant(scan, checked.age, checked.sex, group, person.site or "n/a")


def add_families(path: Path, families: Mapping[str, str]) -> None:
    """Add the column `family` to a participants.tsv, where any family is known."""
    if not families:
        return
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    with path.open("w", newline="") as stream:
        out = csv.DictWriter(stream, (*COLUMNS, FAMILY), delimiter="\t", lineterminator="\n")
        out.writeheader()
        for row in rows:
            out.writerow({**row, FAMILY: families.get(row["participant_id"], "n/a")})


def read_families(root: Path) -> dict[str, str]:
    """Families by scan id, from the participants.tsv of derivatives."""
    with (root / PARTICIPANTS).open(newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t")
        found = {row["participant_id"]: _known(row.get(FAMILY)) for row in rows}
    return {scan: family for scan, family in found.items() if family is not None}


def _rows(path: Path, needed: Sequence[str] = _NAMES["id"]) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        header = stream.readline()
        delimiter = max("\t,;", key=header.count)
        names = [name.strip().strip('"').lower() for name in header.rstrip("\r\n").split(delimiter)]
        if not set(names) & set(needed):
            raise UserError(f"{path}: expected a column {' or '.join(needed)}, found {names}")
        yield from csv.DictReader(stream, fieldnames=names, delimiter=delimiter)


def _first(row: Mapping[str, str], names: Sequence[str]) -> str | None:
    for name in names:
        value = _known(row.get(name))
        if value is not None:
            if name == "gender_code":
                return _SEX_CODES.get(value, value)
            return _SEXES.get(value.lower(), value) if names == _NAMES["sex"] else value
    return None


def _known(value: str | None) -> str | None:
    return None if value is None or value.strip().lower() in _MISSING else value.strip()
