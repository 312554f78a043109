"""Age, sex, group, site and family of each scan, from a lab's own tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cohort.derivatives import Participant
from contracts import bids
from contracts.condition import condition
from contracts.errors import UserError

# Names of tables in order of preference; the last is that of older CamCAN releases.
TABLES = (bids.PARTICIPANTS, "participants.csv", "standard_data.csv")
GROUPS = ("base", "target")
FAMILY = "family"
# A table may lie this many folders above the source: at the root of a BIDS dataset, for a source
# of derivatives/<pipeline>.
_LEVELS_UP = 3
# Names of columns, in lower case and in order of preference.
_NAMES = {
    "id": ("participant_id", "ccid", "subject_id", "subject"),
    "age": ("age", "age_at_scan"),
    "sex": ("sex", "gender_text", "gender", "gender_code"),
    "group": ("group",),
    "site": ("site",),
    "family": (FAMILY, "family_id"),
}
_SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
# These are the codes of CamCAN's column gender_code. In other columns 1 and 2 are not understood,
# because not everyone codes men as 1.
_SEX_CODES = {"1": "M", "2": "F"}
_MISSING = ("", "n/a", "na", "nan", "none")


@dataclass(frozen=True, slots=True)
class Demographics:
    """What tables say about one subject or scan, as text; None where they say nothing."""

    age: str | None = None
    sex: str | None = None
    group: str | None = None
    site: str | None = None
    family: str | None = None

    def or_else(self, other: Demographics) -> Demographics:
        """Return these values, with gaps filled from `other`."""
        names = [f.name for f in fields(Demographics)]
        pairs = ((getattr(self, name), getattr(other, name)) for name in names)
        return Demographics(*(mine if mine is not None else theirs for mine, theirs in pairs))


@dataclass(frozen=True, slots=True)
class ParticipantsTable:
    """The participants of a cohort.

    Parameters
    ----------
    participants : those that can be used, sorted by scan id.
    left_out : the reason why a scan cannot be used, by scan id.
    families : label of the family by scan id, where it is known.
    """

    participants: tuple[Participant, ...]
    left_out: Mapping[str, str]
    families: Mapping[str, str]


def find_table(source: Path) -> Path | None:
    """Return the nearest table in `source` or the folders above it, or None."""
    source = source.resolve()
    for folder in (source, *source.parents[:_LEVELS_UP]):
        for name in TABLES:
            if (folder / name).is_file():
                return folder / name
    return None


def read_table(path: Path) -> dict[str, Demographics]:
    """Read a lab's table; the result is by subject label.

    Raises
    ------
    UserError : if no column names the subject.
    """
    subjects: dict[str, Demographics] = {}
    for row in _rows(path):
        values = {key: _first(row, names) for key, names in _NAMES.items()}
        identity = values.pop("id")
        if identity is not None:
            label = bids.subject_label(identity)
            subjects[label] = subjects.get(label, Demographics()).or_else(Demographics(**values))
    return subjects


def read_sessions(source: Path) -> dict[str, Demographics]:
    """Read the age at each session from BIDS ``sub-*/sub-*_sessions.tsv``, by scan id."""
    scans: dict[str, Demographics] = {}
    for path in sorted(source.glob("sub-*/sub-*_sessions.tsv")):
        for row in _rows(path, needed=("session_id",)):
            session, age = row.get("session_id"), _first(row, _NAMES["age"])
            if session and age is not None:
                scan = bids.scan_id(path.parent.name, session.removeprefix("ses-"))
                scans[scan] = Demographics(age=age)
    return scans


def join_tables(
    scans: Iterable[str], tables: Sequence[Mapping[str, Demographics]]
) -> ParticipantsTable:
    """Look up the participants of `scans` in tables by scan id or subject.

    A scan whose age or sex is missing, or whose age, sex or group is not understood, is left
    out, with the reason.

    Parameters
    ----------
    scans : scan ids.
    tables : an earlier table overrules a later one; in a table, the scan id overrules the subject.
    """
    accepted, left_out, families = [], {}, {}
    for scan in sorted(scans):
        known = Demographics()
        for table in tables:
            for key in (scan, bids.subject_of(scan)):
                known = known.or_else(table.get(key, Demographics()))
        try:
            accepted.append(_participant(scan, known))
        except UserError as error:
            left_out[scan] = str(error)
            continue
        if known.family is not None:
            families[scan] = known.family
    return ParticipantsTable(tuple(accepted), left_out, families)


def _participant(scan: str, known: Demographics) -> Participant:
    for name in ("age", "sex"):
        if getattr(known, name) is None:
            raise UserError(f"no {name}: add it to {bids.PARTICIPANTS}")
    try:
        age = float(str(known.age))
    except ValueError:
        raise UserError(f"age '{known.age}' is not a number of years") from None
    group = known.group or GROUPS[0]
    if group not in GROUPS:
        raise UserError(f"group '{group}' is not {' or '.join(GROUPS)}")
    checked = condition(age, str(known.sex))
    return Participant(scan, checked.age, checked.sex, group, known.site or "n/a")


def add_families(path: Path, families: Mapping[str, str]) -> None:
    """Add the column `family` to a participants.tsv, unless no family is known."""
    if not families:
        return
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    with path.open("w", newline="") as stream:
        out = csv.DictWriter(
            stream, (*bids.PARTICIPANT_COLUMNS, FAMILY), delimiter="\t", lineterminator="\n"
        )
        out.writeheader()
        for row in rows:
            out.writerow({**row, FAMILY: families.get(row["participant_id"], "n/a")})


def read_families(root: Path) -> dict[str, str]:
    """Read the families by scan id from the participants.tsv of a derivatives folder."""
    with (root / bids.PARTICIPANTS).open(newline="") as stream:
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
