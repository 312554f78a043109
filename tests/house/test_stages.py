"""dvc.yaml: the code that a stage depends on is the code that it imports, no more and no less."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from contracts import closure
from infra import stages

ROOT = closure.ROOT
PIPELINE = ROOT / "dvc.yaml"


def pipeline() -> dict[str, dict[str, Any]]:
    """The stages, those of a `foreach` as the one entry that they share."""
    document = YAML(typ="safe").load(PIPELINE.read_text())
    return {name: entry.get("do", entry) for name, entry in document["stages"].items()}


STAGES = pipeline()
CLOSURES = {name: closure.files(stages.module_of(s["cmd"])) for name, s in STAGES.items()}
MODULES = closure.module_files()


@pytest.mark.parametrize("name", STAGES)
def test_the_code_that_a_stage_depends_on_is_its_import_closure(name: str) -> None:
    listed = [dep for dep in STAGES[name]["deps"] if stages.is_code(dep)]
    assert listed == stages.code_of(STAGES[name]["cmd"]), "run `make stages`"


@pytest.mark.parametrize("module", MODULES)
def test_a_touched_module_is_listed_by_exactly_the_stages_that_import_it(module: str) -> None:
    path = MODULES[module]
    importing = {name for name, found in CLOSURES.items() if path in found}
    name = path.relative_to(ROOT).as_posix()
    assert {stage for stage, entry in STAGES.items() if name in entry["deps"]} == importing


def test_no_dependency_is_a_folder_with_code() -> None:
    """A folder would make a stage depend on files that it does not import."""
    for name, stage in STAGES.items():
        folders = [dep for dep in stage["deps"] if stages.is_code(dep) and (ROOT / dep).is_dir()]
        assert not folders, name


def test_every_dependency_on_code_is_there() -> None:
    for name, stage in STAGES.items():
        gone = [d for d in stage["deps"] if stages.is_code(d) and not (ROOT / d).is_file()]
        assert not gone, f"{name}: run `make stages`"


def test_training_a_base_depends_on_no_adapter() -> None:
    assert not [dep for dep in STAGES["train"]["deps"] if dep.startswith("models/adapters/")]


def test_a_stage_that_reads_an_adapted_generator_depends_on_its_base() -> None:
    data = [
        {dep for dep in stage["deps"] if not stages.is_code(dep)}
        for stage in STAGES.values()
        if any("kind}" in dep or dep.endswith("/adapted") for dep in stage["deps"])
    ]
    assert data
    assert all(any(dep.endswith("/base") for dep in deps) for deps in data)


def test_every_package_of_ours_is_looked_at() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    there = {path.partition("/")[0] for path in tracked if (ROOT / path).exists()}
    # Nothing imports the tests; infra writes dvc.yaml and makes no result.
    assert there - {"tests", "infra"} <= set(closure.PACKAGES)


MADE_UP = """\
# Top.
stages:
  one:
    desc: A stage  # why
    cmd: python -m cohort.a --dim ${item}
    deps:
      - cohort/gone.py
      # The data of one.
      - data/in
      - ${derive.source}  # given

    params:
      - one

  many:
    foreach:
      x: {kind: base}
    do:
      cmd:
        - python -m cohort
      deps:
        - data/out
      # The outputs.
      outs:
        - data/end
  bare:
    cmd: python -m cohort.a
    outs:
      - data/bare
"""
REWRITTEN = """\
# Top.
stages:
  one:
    desc: A stage  # why
    cmd: python -m cohort.a --dim ${item}
    deps:
      - cohort/__init__.py
      - cohort/a.py
      - requirements.lock
      # The data of one.
      - data/in
      - ${derive.source}  # given

    params:
      - one

  many:
    foreach:
      x: {kind: base}
    do:
      cmd:
        - python -m cohort
      deps:
        - cohort/__init__.py
        - cohort/__main__.py
        - cohort/a.py
        - requirements.lock
        - data/out
      # The outputs.
      outs:
        - data/end
  bare:
    cmd: python -m cohort.a
    deps:
      - cohort/__init__.py
      - cohort/a.py
      - requirements.lock
    outs:
      - data/bare
"""


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort/__init__.py").write_text("")
    (tmp_path / "cohort/a.py").write_text("")
    (tmp_path / "cohort/__main__.py").write_text("import cohort.a\n")
    return tmp_path


def test_the_rest_of_a_pipeline_stays_as_it_is(made_up: Path) -> None:
    assert stages.rewritten(MADE_UP, made_up) == (REWRITTEN, ["one", "many", "bare"])
    assert stages.rewritten(REWRITTEN, made_up) == (REWRITTEN, [])


def test_a_new_import_changes_the_stages_that_see_it(made_up: Path) -> None:
    (made_up / "cohort/b.py").write_text("")
    assert stages.rewritten(REWRITTEN, made_up)[1] == []
    (made_up / "cohort/__main__.py").write_text("import cohort.a\nimport cohort.b\n")
    text, changed = stages.rewritten(REWRITTEN, made_up)
    assert changed == ["many"]
    assert text.count("cohort/b.py") == 1


def test_check_names_the_stages_that_differ_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = PIPELINE.read_text()
    old = text.replace("      - cohort/split.py\n", "", 1)
    assert old != text
    Path("dvc.yaml").write_text(old)
    done = CliRunner().invoke(stages.main, ["--check"])
    assert done.exit_code == 1
    assert "imports other files: split;" in done.output
    assert Path("dvc.yaml").read_text() == old
    assert CliRunner().invoke(stages.main, []).exit_code == 0
    assert Path("dvc.yaml").read_text() == text
    assert CliRunner().invoke(stages.main, ["--check"]).exit_code == 0


def test_a_command_that_runs_no_module_is_told(made_up: Path) -> None:
    done = MADE_UP.replace("python -m cohort.a", "bash a.sh")
    with pytest.raises(Exception, match="expected a command `python -m MODULE"):
        stages.rewritten(done, made_up)
