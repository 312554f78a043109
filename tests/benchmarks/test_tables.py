"""Tables of the docs are those of the result files, and README's are those of `make demo`."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import __main__ as bench
from benchmarks import demo, result, tables
from benchmarks.measurements import MEASUREMENTS, Measurement
from benchmarks.table_definitions import TABLES, Column, Table, markdown
from contracts.errors import UserError

# A number with its interval, as tables have them: "3.9 [-7.1, 14.9]".
_INTERVAL = re.compile(r"\d \[-?\d[\d.]*, -?\d")
_COLUMNS = (
    Column("what", "name"), Column("steps", "steps"), Column("time (ms)", "cost.time", ".1f", 1e3),
)  # fmt: skip
_KNOWN = {"speed": Table("judge", lambda found: markdown(_COLUMNS, found.rows))}
_TEXT = "before\n\n<!-- table: speed -->\n| old |\n<!-- /table -->\n\nafter\n"


def _written(folder: Path, time: float) -> result.Result:
    rows: list[result.Row] = [
        {"name": "ours", "steps": 16, "cost": {"time": result.interval(time, time / 2, 2 * time)}},
        {"name": "none"},
    ]
    return result.write("judge", rows, n={"rounds": 3}, intervals=result.ROUNDS, folder=folder)


@pytest.mark.parametrize("path", tables.documents(), ids=lambda p: p.name)
def test_tables_of_the_docs_are_those_of_the_results(path: Path) -> None:
    text = path.read_text()
    assert text == tables.filled(text, path.name), f"{path.name} is out of date: run `make tables`"


def test_every_table_is_shown_and_every_result_is_known() -> None:
    shown = {name for path in tables.documents() for name in tables.names(path.read_text())}
    assert shown == set(TABLES)
    files = {path.stem for path in result.RESULTS.glob("*.json")}
    assert files <= set(MEASUREMENTS)
    assert {table.measurement for table in TABLES.values()} == set(MEASUREMENTS)


def test_no_measured_interval_is_pasted_into_the_docs() -> None:
    for path in tables.documents():
        generated = re.compile(r"<!-- table: .*?<!-- /table -->", re.DOTALL)
        assert not _INTERVAL.search(generated.sub("", path.read_text())), path.name


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_results_were_made_by_the_commands_of_the_list(name: str) -> None:
    found = result.read(name)
    if found is not None:
        assert found.command == MEASUREMENTS[name].command
        assert not found.dirty, f"results/{name}.json was measured with uncommitted changes"


def test_a_table_is_filled_and_stays(tmp_path: Path) -> None:
    found = _written(tmp_path, 0.02)
    new = tables.filled(_TEXT, "some.md", tmp_path, _KNOWN)
    assert (
        "| what | steps | time (ms) |\n| --- | --- | --- |\n"
        "| ours | 16 | 20.0 [10.0, 40.0] |\n| none |  |  |"
    ) in new
    assert found.commit[:7] in new
    assert "n: 3 rounds" in new
    assert new.startswith("before\n")
    assert new.endswith("<!-- /table -->\n\nafter\n")
    assert tables.filled(new, "some.md", tmp_path, _KNOWN) == new
    _written(tmp_path, 0.03)
    assert "30.0 [15.0, 60.0]" in tables.filled(new, "some.md", tmp_path, _KNOWN)


def test_without_a_result_the_table_says_what_to_run(tmp_path: Path) -> None:
    new = tables.filled(_TEXT, "some.md", tmp_path, _KNOWN)
    assert "Not measured yet with this version: run `python -m benchmarks.judge`." in new
    assert "old" not in new
    said = tables.content(TABLES["demo-scores"], tmp_path)
    assert said.endswith("run `make demo`, then `python -m benchmarks.demo`.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<!-- table: nothing -->\n<!-- /table -->\n", "no table nothing: expected some of speed"),
        ("<!-- table: speed -->\n", "one without the other"),
        ("<!-- /table -->\n", "one without the other"),
        ("<!-- table: speed --> <!-- /table -->\n", "on a line of its own"),
    ],
)
def test_places_that_cannot_be_filled_are_told(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        tables.filled(text, "some.md", tmp_path, _KNOWN)


def test_the_check_fails_on_a_changed_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.md"
    path.write_text(_TEXT.replace("speed", "paper"))
    monkeypatch.setattr(tables, "documents", lambda: [path])
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    old = path.read_text()
    assert CliRunner().invoke(tables.main, ["--check"]).exit_code == 1
    assert path.read_text() == old
    assert CliRunner().invoke(tables.main, []).exit_code == 0
    assert path.read_text() != old
    assert CliRunner().invoke(tables.main, ["--check"]).exit_code == 0


def _report(name: str) -> dict[str, Any]:
    questions = ("fidelity", "diversity", "anatomy", "privacy", "utility")
    distance = {"value": 0.004, "low": -0.006, "high": 0.014, "verdict": "pass",
                "gaussian": 0.03, "real": -0.007, "copies": -0.003}  # fmt: skip
    return {
        "name": name,
        "group": "base",
        "n": {"synthetic": 32, "test": 36},
        "steps": 8,
        "seed": 7,
        "verdicts": dict.fromkeys(questions, "pass"),
        "metrics": {"kernel_distance": distance},
    }


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose chain has evaluated two generators."""
    lock = "stages:\n"
    for name in ("base-2d", "base-3d"):
        path = tmp_path / "data" / "reports" / f"evaluate-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_report(name)))
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        lock += f"""  evaluate@{name}:
    outs:
    - {{path: data/reports/gallery-{name}.png, md5: 1}}
    - {{path: data/reports/evaluate-{name}.json, md5: {md5}}}
"""
    (tmp_path / "dvc.lock").write_text(lock)
    monkeypatch.setattr(result, "ROOT", tmp_path)
    return tmp_path


def test_the_scores_of_a_demo_are_those_that_the_lock_records(chain: Path) -> None:
    assert [row["name"] for row in demo.scores(chain)] == ["base-2d", "base-3d"]
    path = chain / "data" / "reports" / "evaluate-base-2d.json"
    path.write_text(path.read_text().replace("0.004", "0.003"))
    with pytest.raises(UserError, match=r"not the file that dvc\.lock records: run `make demo`"):
        demo.scores(chain)
    path.unlink()
    with pytest.raises(UserError, match="is not there"):
        demo.scores(chain)


def test_tables_of_a_demo_are_what_it_printed(chain: Path) -> None:
    from evaluation.summary import table

    rows = demo.scores(chain)
    found = result.write("demo", rows, n={}, folder=chain)
    printed = table(rows)
    for name in ("demo-verdicts", "demo-scores"):
        assert TABLES[name].body(found) in printed
    assert "base-2d" in TABLES["demo-verdicts"].body(found)
    assert "base-2d" not in TABLES["demo-scores"].body(found)
    assert "4.00 [-6.00, 14.0]" in TABLES["demo-scores"].body(found)


def test_the_demo_of_the_readme_is_that_of_the_committed_lock(tmp_path: Path) -> None:
    # The lock of the last commit: a `make demo` on another processor writes other bytes.
    committed = subprocess.run(
        ["git", "show", f"HEAD:{demo.LOCK}"], cwd=result.ROOT, capture_output=True, check=True
    )
    (tmp_path / demo.LOCK).write_bytes(committed.stdout)
    shown = result.read("demo")
    assert shown is not None, "expected results/demo.json: `python -m benchmarks.demo`"
    of_the_result = {path: md5 for path, md5 in shown.inputs.items() if path != demo.LOCK}
    assert of_the_result == demo.recorded(tmp_path), (
        "dvc.lock has another run: `python -m benchmarks.demo`"
    )


def test_bench_lists_its_measurements_and_tells_an_unknown_one() -> None:
    listed = CliRunner().invoke(bench.main, ["--list"])
    assert all(m.command in listed.output for m in MEASUREMENTS.values())
    unknown = CliRunner().invoke(bench.main, ["nothing"])
    assert unknown.exit_code == 2
    assert "no measurement nothing" in unknown.output


@pytest.mark.parametrize("measurement", MEASUREMENTS.values(), ids=lambda m: m.name)
def test_commands_of_measurements_are_understood(measurement: Measurement) -> None:
    from importlib import import_module

    main = import_module(f"benchmarks.{measurement.module}").main
    main.make_context(measurement.name, list(measurement.arguments))
