"""The stage `split`: who is trained on, validated on and tested on."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.derivatives import Participant, read_participants
from contracts.console import command, say
from contracts.errors import UserError
from contracts.params import load

PARTS = ("train", "val", "test")
DERIVATIVES = Path("data/derivatives")
SPLIT = Path("data/split.json")
# Subjects of one sex and neighbouring ages form a stratum.
_STRATUM = 10


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
    """Subjects by group (base, target) and part (train, val, test)."""

    seed: int
    groups: dict[str, dict[str, tuple[str, ...]]]

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
        everyone = [s for parts in groups.values() for part in parts.values() for s in part]
        twice = sorted({s for s in everyone if everyone.count(s) > 1})
        if twice:
            raise UserError(f"{path}: {', '.join(twice)} in more than one part: split again")
        return manifest

    def subjects(self, group: str, part: str) -> tuple[str, ...]:
        """Ids of one part; a UserError if there is no such group."""
        if group not in self.groups:
            raise UserError(
                f"the split has no group '{group}': expected one of {', '.join(self.groups)}; "
                "name the groups in the column `group` of participants.tsv"
            )
        return self.groups[group][part]

    @property
    def digest(self) -> str:
        """Short hash of who is where."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        groups = {g: {p: list(ids) for p, ids in parts.items()} for g, parts in self.groups.items()}
        return {"seed": self.seed, "groups": groups}


def split(participants: Sequence[Participant], settings: SplitSettings) -> Manifest:
    """Divide each group by subject, with the same ages and sexes in every part.

    Subjects are ordered by sex and age and taken in strata of ten; within a stratum a keyed hash
    of the id decides, so that neither the order of the rows nor the other groups matter.
    """
    groups: dict[str, list[Participant]] = defaultdict(list)
    for p in participants:
        groups[p.group].append(p)
    return Manifest(
        settings.seed, {g: _divide(members, settings) for g, members in sorted(groups.items())}
    )


def _divide(members: Sequence[Participant], settings: SplitSettings) -> dict[str, tuple[str, ...]]:
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    ordered = sorted(members, key=lambda p: (p.sex, p.age, p.id))
    for start in range(0, len(ordered), _STRATUM):
        stratum = sorted(
            ordered[start : start + _STRATUM], key=lambda p: _rank(p.id, settings.seed)
        )
        for p in stratum:
            seen = 1 + sum(map(len, parts.values()))
            wanted = {"test": settings.test, "val": settings.val}
            # The part that lags furthest behind its share so far takes the subject.
            wanted["train"] = 1 - settings.test - settings.val
            part = max(PARTS, key=lambda name: wanted[name] * seen - len(parts[name]))
            parts[part].append(p.id)
    return {part: tuple(sorted(ids)) for part, ids in parts.items()}


def _rank(subject: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{subject}".encode()).hexdigest()


@command()
def main() -> None:
    """Write data/split.json; settings are `split` of params.yaml."""
    manifest = split(read_participants(DERIVATIVES), load(SplitSettings, "split"))
    SPLIT.parent.mkdir(parents=True, exist_ok=True)
    SPLIT.write_text(json.dumps(manifest.to_json(), indent=1) + "\n")
    for group, parts in manifest.groups.items():
        counts = ", ".join(f"{len(parts[part])} {part}" for part in PARTS)
        say(f"{group}: {counts}")


if __name__ == "__main__":
    main()
