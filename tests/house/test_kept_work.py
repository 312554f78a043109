"""Kept work in data/work belongs to the code that made it: its names hold an import closure."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from contracts import closure

MODULES = closure.module_files()
# They name folders in data/work for others, who put the closure in (`work_folder`, `rows`), or keep
# there what is known by its own content (champions by their digest; a cohort that a user builds).
CONTENT_IS_THE_KEY = {
    "contracts.paths",
    "training.stage",
    "registry.champion",
    "benchmarks.measurements",
}
# They only hand the folder on to the module that keeps work there.
HANDED_ON = {"evaluation.evaluate": "models.prior.group"}


def names_work(path: Path) -> bool:
    """Whether a module uses the path of data/work."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == "WORK")
        or (isinstance(node, ast.Name) and node.id == "WORK")
        for node in ast.walk(ast.parse(path.read_text()))
    )


def takes_a_digest(path: Path) -> bool:
    """Whether a module, or one of ours that it imports, calls `closure.digest`."""
    text = path.read_text()
    return "closure.digest(" in text or any(
        "closure.digest(" in MODULES[name].read_text()
        for name in closure.imports(path)
        if name in MODULES and name.partition(".")[0] == "benchmarks"
    )


USERS = sorted(name for name, path in MODULES.items() if names_work(path))


def test_the_modules_that_keep_work_are_found() -> None:
    assert {"cohort.simulate", "cohort.derive", "cohort.template", "training.train"} <= set(USERS)


@pytest.mark.parametrize("name", USERS)
def test_kept_work_is_named_by_the_code_that_made_it(name: str) -> None:
    if name not in CONTENT_IS_THE_KEY:
        keeper = HANDED_ON.get(name, name)
        assert takes_a_digest(MODULES[keeper]), f"{keeper}: put closure.digest(...) into the key"
