"""A small cohort on disk, as the stages before training leave it."""

from __future__ import annotations

import json
from pathlib import Path

from cohort.derivatives import (
    Derivatives,
    Participant,
    write_description,
    write_participants,
    write_subject,
)
from contracts.bids import SPACE as SPACE_FILE
from tests.models.tiny import SPACE, tiny_volumes


def write_cohort(data: Path, subjects: int = 24, sites: tuple[str, ...] = ("one",)) -> Derivatives:
    """Write `derivatives/` and `split.json`: all of the group base, all in its part train; the
    sites take turns."""
    root = data / "derivatives"
    volumes, masks, people = tiny_volumes(subjects)
    ids = [f"sub-{i:04d}" for i in range(subjects)]
    write_description(root, "tiny", simulated=True, generated_by="tests")
    write_participants(
        root,
        [
            Participant(name, p.age, p.sex, "base", sites[i % len(sites)])
            for i, (name, p) in enumerate(zip(ids, people, strict=True))
        ],
    )
    (root / SPACE_FILE).write_text(json.dumps(SPACE.to_json()))
    for name, (fa, md), mask in zip(ids, volumes, masks, strict=True):
        write_subject(root, name, SPACE, {"fa": fa, "md": md}, mask, {})
    parts = {"base": {"train": ids, "val": [], "test": []}}
    (data / "split.json").write_text(json.dumps({"seed": 0, "groups": parts}))
    return Derivatives.open(root)
