"""What DVC itself calls stale after one line of the code was touched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from contracts import closure
from infra import stages

ROOT = closure.ROOT


def resolved() -> dict[str, dict[str, Any]]:
    """Every stage under the name that DVC gives it (train@2d), with its names filled in."""
    document = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    found: dict[str, dict[str, Any]] = {}
    for name, entry in document["stages"].items():
        each = entry.get("foreach")
        if each is None:
            found[name] = entry
            continue
        for key, item in (each if isinstance(each, dict) else {k: k for k in each}).items():
            values = {"key": key, "item": item}
            if isinstance(item, dict):
                values |= {f"item.{field}": value for field, value in item.items()}
            text = json.dumps(entry["do"])
            for field, value in values.items():
                text = text.replace(f"${{{field}}}", str(value))
            found[f"{name}@{key}"] = json.loads(text)
    return found


STAGES = resolved()


class Clone:
    """The project's code beside made-up data, all of it recorded in dvc.lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        code = {dep for stage in STAGES.values() for dep in stage["deps"] if stages.is_code(dep)}
        modules = {path.relative_to(ROOT).as_posix() for path in closure.module_files().values()}
        for name in code | modules | {"dvc.yaml", "params.yaml", ".dvcignore"}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self.dvc("init", "--no-scm", "--quiet")
        source = YAML(typ="safe").load((ROOT / "params.yaml").read_text())["derive"]["source"]
        self.make(source)
        for stage in STAGES.values():
            for kind in ("outs", "metrics", "plots"):
                for out in stage.get(kind, []):
                    self.make(out if isinstance(out, str) else next(iter(out)))
        self.make("data/derivatives/participants.tsv")
        self.dvc("commit", "--force", "--quiet")

    def make(self, name: str) -> None:
        """A small file, or a folder with one."""
        path = self.folder / name if Path(name).suffix else self.folder / name / "content"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)

    def dvc(self, *words: str) -> str:
        """What a command of DVC prints."""
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *words],
            cwd=self.folder,
            env={**os.environ, "DVC_NO_ANALYTICS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stale(self) -> set[str]:
        """The stages whose own dependencies or outputs differ from those recorded.

        It asks what `dvc status --json` asks, without starting a process.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of DVC about its own packages
            from dvc.repo import Repo

            # DVC names stages relative to the current folder.
            with contextlib.chdir(self.folder), Repo() as repo:
                return set(repo.status())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("clone"))


def importing(*paths: Path) -> set[str]:
    """The stages whose closure holds one of the files."""
    return {
        name
        for name, stage in STAGES.items()
        if set(paths) & set(closure.files(stages.module_of(stage["cmd"])))
    }


def all_of(*names: str) -> set[str]:
    """The stages of these entries of dvc.yaml."""
    return {stage for stage in STAGES if re.split("@", stage)[0] in names}


def touched(clone: Clone, *names: str) -> set[str]:
    """What is stale while these files have another line."""
    before = {name: (clone.folder / name).read_text() for name in names}
    try:
        for name in names:
            (clone.folder / name).write_text(before[name] + "# touched\n")
        return clone.stale()
    finally:
        for name in names:
            (clone.folder / name).write_text(before[name])


def test_nothing_is_stale_at_first(clone: Clone) -> None:
    assert json.loads(clone.dvc("status", "--json")) == {}
    assert clone.stale() == set()


@pytest.mark.parametrize("module", ["cohort.split", "training.settings", "evaluation.report"])
def test_a_touched_module_makes_those_stages_stale_that_import_it(
    clone: Clone, module: str
) -> None:
    path = closure.module_files()[module]
    expected = importing(path)
    assert expected
    assert touched(clone, path.relative_to(ROOT).as_posix()) == expected


def test_the_scale_of_a_map_makes_every_stage_stale_that_reads_maps(clone: Clone) -> None:
    stale = touched(clone, "contracts/maps.py")
    assert stale == importing(ROOT / "contracts/maps.py")
    assert stale >= all_of("simulate", "derive", "train", "adapt", "evaluate")


def test_code_that_no_stage_imports_makes_none_stale(clone: Clone) -> None:
    lists = {dep for stage in STAGES.values() for dep in stage["deps"]}
    others = [
        path.relative_to(ROOT).as_posix()
        for path in closure.module_files().values()
        if path.relative_to(ROOT).as_posix() not in lists and path.read_text()
    ]
    assert others
    assert touched(clone, *others) == set()


def test_another_lock_of_requirements_makes_every_stage_stale(clone: Clone) -> None:
    assert touched(clone, stages.LOCK) == set(STAGES)


def test_a_new_adapter_leaves_the_base_alone(clone: Clone) -> None:
    new = clone.folder / "models/adapters/made_up.py"
    new.write_text('"""A method that nobody imports yet."""\n')
    try:
        assert clone.stale() == set()
    finally:
        new.unlink()
    adapters = sorted((ROOT / "models/adapters").glob("*.py"))
    stale = touched(clone, *(p.relative_to(ROOT).as_posix() for p in adapters if p.read_text()))
    assert stale >= all_of("adapt")
    assert not stale & all_of("train", "simulate", "derive", "split")


def test_a_touched_page_template_makes_the_reports_stale(clone: Clone) -> None:
    pages = [dep for dep in STAGES["evaluate@base-2d"]["deps"] if dep.endswith(".html")]
    assert pages
    assert touched(clone, *pages) == all_of("evaluate")
