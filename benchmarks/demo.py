"""The scores of the last `make demo`, kept as a result: `python -m benchmarks.demo`.

The numbers are those of the run that dvc.lock records: a report whose MD5 is another one is
refused, and the MD5s are kept beside the numbers, so that a test finds results that are stale.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks import result
from contracts.console import command
from contracts.errors import UserError

NAME = "demo"
LOCK = "dvc.lock"


def recorded(root: Path = result.ROOT) -> dict[str, str]:
    """Path -> MD5 of the scores that the evaluations of dvc.lock wrote, in the lock's order.

    Raises
    ------
    UserError : if there is no dvc.lock, or no evaluation in it.
    """
    from ruamel.yaml import YAML

    lock = root / LOCK
    document: Any = YAML(typ="safe").load(lock.read_text()) if lock.exists() else {}
    found = {
        out["path"]: out["md5"]
        for stage, content in document.get("stages", {}).items()
        if stage.startswith("evaluate@")
        for out in content["outs"]
        if Path(out["path"]).match("evaluate-*.json")
    }
    if not found:
        raise UserError(f"expected evaluations in {lock}, found none: run `make demo`")
    return found


def scores(root: Path = result.ROOT) -> list[dict[str, Any]]:
    """The scores of each generator.

    Raises
    ------
    UserError : if a file of scores is missing, or is not the one that dvc.lock records.
    """
    found = []
    for name, md5 in recorded(root).items():
        path = root / name
        if not path.exists() or _md5(path) != md5:
            raise UserError(
                f"{name} is not there, or not the file that {LOCK} records: run `make demo`"
            )
        found.append(json.loads(path.read_text()))
    return found


@command()
def main() -> None:
    """Copy the scores of the last `make demo` to results/demo.json."""
    found = scores()
    result.write(
        NAME,
        found,
        n={},  # each row has its own
        seeds=sorted({row["seed"] for row in found if "seed" in row}),
        threads=result.machine(1)["cores"],
        intervals=result.CONFIDENCE,
        inputs={LOCK: _md5(result.ROOT / LOCK), **recorded()},
    )


def _md5(path: Path) -> str:
    # DVC records MD5.
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main()
