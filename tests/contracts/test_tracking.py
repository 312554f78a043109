"""Stages record their work without depending on what keeps the record."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from contracts import tracking
from contracts.errors import UserError

ROOT = Path(tracking.__file__).parents[1]
STAGES = ("training/train.py", "training/adapt.py", "training/stage.py", "evaluation")


def test_a_run_of_the_projects_experiment_is_opened_and_found_again(tracking_uri: str) -> None:
    from services.tracking import store

    with tracking.start_run("base-3d", {"seed": 1}, {"stage": "train"}) as run:
        run.metrics({"train/loss": 1.0})
    again = tracking.resume_run(pickle.loads(pickle.dumps(run)).id)
    again.tags({"verdict.privacy": "pass"})
    kept = store.client().get_run(run.id)
    assert kept.info.status == "FINISHED"
    assert kept.data.tags["verdict.privacy"] == "pass"
    place = store.client().get_experiment(kept.info.experiment_id)
    assert place.name == tracking.EXPERIMENT
    with pytest.raises(UserError, match="has no run"):
        tracking.resume_run("0" * 32)


def test_the_lineage_names_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("split.json").write_text("{}")
    tags = tracking.lineage([Path("split.json"), Path("none")])
    assert tags["data.none"] == "missing"
    assert len(tags["data.split.json"]) == 32


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_the_backend(stage: str) -> None:
    path = ROOT / stage
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("services.tracking")], file
