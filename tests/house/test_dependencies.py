"""pyproject.toml declares what the code imports, in the extra that its room is installed with."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from contracts import closure

ROOT = closure.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What a room may import, beside the dependencies that every installation has.
EXTRAS = {
    "contracts": [],
    "cohort": ["cohort"],
    "models": ["train"],  # a prior is fitted with scikit-learn; sampling needs none of it
    "evaluation": ["evaluation"],
    "services": ["search", "pipeline"],  # files are hashed by DVC where it is installed
    "training": ["search"],
    "registry": ["tracking"],
    "serving": ["serve"],
    "benchmarks": ["all"],
    "infra": ["all"],
    "tests": ["all"],
}
# Not imported here, and needed: MONAI imports einops, and the others are commands.
NOT_IMPORTED = {"einops", "mypy", "pytest-xdist", "ruff"}


def normal(name: str) -> str:
    """A distribution's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    """The names in a list of requirements, those of our own extras resolved."""
    found = set()
    for line in requirements:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", line).groups()  # type: ignore[union-attr]
        if name == PROJECT["name"]:
            for extra in extras.split(","):
                found |= declared(PROJECT["optional-dependencies"][extra])
        else:
            found.add(normal(name))
    return found


def allowed(room: str) -> set[str]:
    """What a room may import."""
    extras = [line for e in EXTRAS[room] for line in PROJECT["optional-dependencies"][e]]
    return declared(PROJECT["dependencies"]) | declared(extras)


def imported(room: str) -> dict[str, set[str]]:
    """Foreign packages that a room imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / room).rglob("*.py")):
        for name in closure.imports(path):
            top = name.partition(".")[0]
            if top and top not in sys.stdlib_module_names and not (ROOT / top).is_dir():
                found.setdefault(top, set()).add(str(path.relative_to(ROOT)))
    return found


DISTRIBUTIONS = packages_distributions()
ROOMS = [room for room in EXTRAS if (ROOT / room).is_dir()]


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_imports_is_declared(room: str) -> None:
    names = allowed(room)
    missing = {
        package: sorted(files)
        for package, files in imported(room).items()
        if not names & {normal(one) for one in DISTRIBUTIONS.get(package, [package])}
    }
    assert not missing, f"declare it in pyproject.toml, or do not import it in {room}/"


def test_every_room_is_looked_at() -> None:
    assert set(closure.PACKAGES) <= set(EXTRAS)


def test_what_is_declared_is_imported() -> None:
    packages = {package for room in ROOMS for package in imported(room)}
    used = {normal(one) for package in packages for one in DISTRIBUTIONS.get(package, [package])}
    everything = declared(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        everything |= declared(extra)
    assert everything - used == NOT_IMPORTED


def test_the_lock_pins_all_that_is_declared() -> None:
    lines = Path(ROOT / "requirements.lock").read_text().split()
    pinned = {normal(line.partition("==")[0]) for line in lines}
    everything = declared(PROJECT["dependencies"])
    for extra in PROJECT["optional-dependencies"].values():
        everything |= declared(extra)
    assert everything <= pinned
