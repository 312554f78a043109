"""Tables of the docs, generated from results/*.json: `python -m benchmarks.tables`.

A document names a table between two comments; what stands between them is replaced:

    <!-- table: NAME -->
    <!-- /table -->
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import click

from benchmarks.measurements import MEASUREMENTS
from benchmarks.result import ROOT, Result, read
from benchmarks.table_definitions import TABLES, Table
from contracts.console import command, say
from contracts.errors import UserError

_BEGIN, _END = "<!-- table: {} -->", "<!-- /table -->"
_PLACE = re.compile(r"<!-- table: (?P<name>[\w-]+) -->\n(?P<content>.*?)<!-- /table -->", re.DOTALL)
_MARKERS = re.compile(r"<!-- (?:table: [^>]*|/table) -->")


def documents(root: Path = ROOT) -> list[Path]:
    """The files that may hold tables."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def names(text: str) -> list[str]:
    """The tables that a document names."""
    return [place["name"] for place in _PLACE.finditer(text)]


def filled(
    text: str,
    where: str,
    results: Path | None = None,
    tables: Mapping[str, Table] = TABLES,
) -> str:
    """A document with its tables as their result files have them now.

    Parameters
    ----------
    where : name of the document, for errors.

    Raises
    ------
    UserError : if a table is not known, or a comment that begins or ends one stands alone.
    """
    if unknown := sorted(set(names(text)) - set(tables)):
        raise UserError(
            f"{where}: no table {', '.join(unknown)}: expected some of {', '.join(tables)}"
        )
    if len(_MARKERS.findall(text)) != 2 * len(names(text)):
        raise UserError(
            f"{where}: expected each table between {_BEGIN.format('NAME')} and {_END}, each on a "
            "line of its own, found one without the other"
        )

    def replaced(place: re.Match[str]) -> str:
        name = place["name"]
        return f"{_BEGIN.format(name)}\n{content(tables[name], results)}\n{_END}"

    return _PLACE.sub(replaced, text)


def content(table: Table, results: Path | None = None) -> str:
    """A table and the line below it, or what to run where there is no result."""
    result = read(table.measurement, results)
    measurement = MEASUREMENTS[table.measurement]
    if result is None:
        first = measurement.before
        before = f"`{first}`, then " if first.startswith(("make ", "python ")) else ""
        return f"Not measured yet with this version: run {before}`{measurement.command}`."
    return f"{table.body(result)}\n\n{caption(result, table.measurement)}"


def caption(result: Result, name: str) -> str:
    """Where the numbers come from: n, seeds, intervals, machine, date, code, command, file."""
    n = ", ".join(f"{count} {what}" for what, count in result.n.items())
    if len(result.seeds) > 1:
        seeds = "seeds " + ", ".join(map(str, result.seeds))
    else:
        seeds = "".join(f"seed {seed}" for seed in result.seeds)
    brackets = f"in brackets: {result.intervals}" if result.intervals else ""
    machine = result.machine
    threads = f"{machine['threads']} of {machine['cores']} cores"
    on = machine.get("gpu") or f"{machine['processor']}, {threads}"
    changed = " with uncommitted changes" if result.dirty else ""
    code = f"{result.date[:10]}, commit {result.commit[:7]}{changed}"
    about = "; ".join(filter(None, [f"n: {n}" if n else "", seeds, brackets, on, code]))
    return f"*{about}; `{result.command}` (`results/{name}.json`)*"


def update(paths: Iterable[Path], write: bool) -> list[Path]:
    """The documents whose tables differ from their result files; rewritten if `write`."""
    differing = []
    for path in paths:
        text = path.read_text()
        new = filled(text, path.name)
        if new != text:
            differing.append(path)
            if write:
                path.write_text(new)
    return differing


@command()
@click.option("--check", is_flag=True, help="Change nothing; fail if a table differs.")
def main(check: bool) -> None:
    """Bring the tables of README.md and docs/ up to date with results/*.json."""
    differing = update(documents(), write=not check)
    shown = ", ".join(str(path.relative_to(ROOT)) for path in differing)
    if check and differing:
        say(f"tables differ from results/: {shown}: run `make tables`")
        sys.exit(1)
    say(f"rewritten: {shown}" if differing else "all tables are as results/ has them")


if __name__ == "__main__":
    main()
