"""How a module of ours is made: not too long, and without paths of its own to the data."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import closure

ROOT = closure.ROOT
LONGEST = 350
MODULES = closure.module_files()
EVERY = [*MODULES.values(), *sorted((ROOT / "infra").glob("*.py"))]
_PATH = re.compile(r"(?<![\w/.-])data/\w")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", EVERY, ids=name)
def test_a_module_has_at_most_350_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def said(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module, but for docstrings and the help texts of commands."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.keyword) and node.arg == "help":
            continue
        yield node
        yield from said(node)


def is_data_folder(node: ast.AST) -> bool:
    """Whether a node is `Path("data")` or `root / "data"`; elsewhere the word is only a word."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Path":
        part: ast.expr | None = node.args[0] if node.args else None
    elif isinstance(node, ast.BinOp) and "root" in ast.unparse(node.left).lower():
        part = node.right
    else:
        return False
    return isinstance(part, ast.Constant) and part.value in ("data", "data/")


def data_paths(source: str) -> list[str]:
    """Where a module writes out a path below data/, as line: text."""
    found = []
    for node in said(ast.parse(source)):
        if is_data_folder(node):
            found.append(f"{node.lineno}: {ast.unparse(node)}")  # type: ignore[attr-defined]
        elif isinstance(node, ast.Constant) and _PATH.search(str(node.value)):
            found.append(f"{node.lineno}: {node.value!r}")
    return found


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('OUT = Path("data/models")', ["1: 'data/models'"]),
        ('OUT = Path("data")', ["1: Path('data')"]),
        ('raise E(f"no {x}: look in data/work for it")', ["1: ': look in data/work for it'"]),
        ('"""Writes data/models."""\n', []),
        ('def f():\n    """Writes data/models."""\n', []),
        ('option("--x", help="As data/models.")', []),
        ('OUT = root / "data" / "x"', ["1: root / 'data'"]),
        (
            'tags = {"data.train": 1, "data": 2}\nother = "metadata/x"\nurl = "https://a/data/b"\n',
            [],
        ),
    ],
)
def test_paths_are_found_where_they_are(source: str, lines: list[str]) -> None:
    assert data_paths(source) == lines


@pytest.mark.parametrize(
    "path", [path for path in EVERY if name(path) != "contracts/paths.py"], ids=name
)
def test_paths_of_data_come_from_contracts(path: Path) -> None:
    assert data_paths(path.read_text()) == [], "take it from contracts.paths"


def test_only_plain_files_are_tracked() -> None:
    """A link (to a data folder on another disk, say) would come along into every clone."""
    listed = subprocess.run(
        ["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    modes = {line.split()[0] for line in listed.stdout.splitlines()}
    assert modes <= {"100644", "100755"}
