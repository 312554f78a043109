"""Which rooms and files may know of which: arrows point down, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from contracts import closure

ROOT = closure.ROOT
MODULES = closure.module_files()
# The rooms that a room may import, beside itself.
BELOW = {
    "contracts": set(),
    "cohort": {"contracts"},
    "models": {"contracts", "cohort"},
    "services": {"contracts"},
    "evaluation": {"contracts", "cohort", "models"},
    "training": {"contracts", "cohort", "models", "services", "evaluation"},
    "registry": {"contracts", "cohort", "models", "services", "evaluation", "training"},
    "serving": {"contracts", "cohort", "models", "services", "registry"},
    "benchmarks": set(closure.PACKAGES) - {"serving", "benchmarks"},
}
ROOMS = [room for room in BELOW if (ROOT / room).is_dir()]


def named(path: Path) -> set[str]:
    """The modules of ours that a file names in its imports, those for type checkers too.

    `from a import b` names the module a.b where there is one, and else a.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write the whole name of what is imported"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module or "" for name in inner}
    return found & set(MODULES)


IMPORTS = {module: named(path) for module, path in MODULES.items()}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    wrong = {
        f"{module} -> {other}"
        for module, others in IMPORTS.items()
        for other in others
        if module.partition(".")[0] == room and other.partition(".")[0] not in BELOW[room] | {room}
    }
    assert not wrong


def test_the_rooms_themselves_have_no_circle() -> None:
    assert not circles({room: set(below) for room, below in BELOW.items()})


def test_every_room_has_its_place() -> None:
    assert set(BELOW) == set(closure.PACKAGES)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other or themselves, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], order[other])
        if low[node] == order[node]:
            at = stack.index(node)
            group, stack[at:] = sorted(stack[at:]), []
            if len(group) > 1 or node in graph.get(node, ()):
                found.append(group)

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def test_a_circle_is_found_and_a_diamond_is_none() -> None:
    assert circles({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]
    assert circles({"a": {"a"}}) == [["a"]]


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circles(IMPORTS)
