"""The result of a measurement as a file, `results/<name>.json`; see `results/README.md`."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from contracts.console import say
from contracts.errors import UserError

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"

CONFIDENCE = "95 % confidence interval"
ROUNDS = "least and most of the rounds, around their median"

_PACKAGES = ("torch", "monai", "numpy", "scipy")
_INSTRUCTIONS = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"}
# More digits than any table shows.
_DIGITS = 9
# What is written about the code, or by running it, and does not change what it does.
_NOT_CODE = (":!results", ":!docs", ":!*.md", ":!dvc.lock")


@dataclass(frozen=True, slots=True)
class Result:
    """A measurement and what it depends on; the fields are those of `results/README.md`."""

    command: str
    commit: str
    dirty: bool
    date: str
    seeds: list[int]
    machine: dict[str, Any]
    versions: dict[str, str]
    n: dict[str, int]
    intervals: str
    rows: list[Row]
    inputs: dict[str, str] = field(default_factory=dict)


def interval(value: float, low: float, high: float) -> dict[str, float]:
    """A number with its interval, as it stands in `rows`."""
    return {"value": value, "low": low, "high": high}


def of_rounds(values: Sequence[float]) -> dict[str, float]:
    """The median of some rounds, with the least and the most of them."""
    return interval(float(median(values)), min(values), max(values))


def write(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    n: Mapping[str, int],
    seeds: Sequence[int] = (),
    threads: int = 1,
    intervals: str = "",
    gpu: str = "",
    inputs: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Result:
    """Write `results/<name>.json` for the command that is running.

    Parameters
    ----------
    rows : what was measured; numbers with an interval are made by `interval`.
    n : how many of each: volumes, subjects, rounds.
    threads : that the measured work was given.
    intervals : what the ends of the intervals are, such as `CONFIDENCE`.
    gpu : its name, if the work ran on one.
    inputs : path -> MD5 of files of the chain that the numbers come from.
    folder : another one than `results`.
    """
    commit, dirty = _commit()
    result = Result(
        command_line(), commit, dirty,
        datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        list(seeds), machine(threads, gpu), versions(), dict(n), intervals,
        [_rounded(dict(row)) for row in rows], dict(inputs or {}),
    )  # fmt: skip
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(asdict(result), indent=1) + "\n")
    say(f"written: {path}; `make tables` brings it into the docs")
    return result


def read(name: str, folder: Path | None = None) -> Result | None:
    """The result of a measurement; None if there is none yet.

    Raises
    ------
    UserError : if the file is not as `write` writes it.
    """
    path = (folder or RESULTS) / f"{name}.json"
    if not path.exists():
        return None
    try:
        return Result(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected the keys that results/README.md lists, found: {error}; "
            "measure it again"
        ) from None


def is_of_this_code(result: Result) -> bool:
    """Whether the code at the result's commit is the code that is here now."""
    if result.dirty or _git("status", "--porcelain", "--", ".", *_NOT_CODE) != "":
        return False
    return _git("diff", "--stat", result.commit, "HEAD", "--", ".", *_NOT_CODE) == ""


def command_line() -> str:
    """The command that is running, as one types it in the project's root."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = ["-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join(["python", *program, *sys.argv[1:]])


def machine(threads: int, gpu: str = "") -> dict[str, Any]:
    """What the numbers depend on beside the code: processor, cores, threads, memory, GPU."""
    model, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    found = {
        "processor": model,
        "instructions": " ".join(sorted(flags & _INSTRUCTIONS)),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "memory": round(memory, 1),
    }
    return found | ({"gpu": gpu} if gpu else {})


def versions() -> dict[str, str]:
    """Python and the packages whose version may change a number."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _commit() -> tuple[str, bool]:
    """The commit that is checked out, and whether the code differs from it."""
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--", ".", *_NOT_CODE)
    return commit or "unknown", changed != ""


def _git(*arguments: str) -> str | None:
    """What git answers; None if there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
