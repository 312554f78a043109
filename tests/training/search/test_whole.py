"""A whole search on a small cohort, from the command to the page; no test subject is read."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from contracts.params import load, parse
from services.tracking import store
from tests.cohort.tiny import write_cohort
from tests.models.tiny import tiny_generator
from training.search import run as runs
from training.search.adopt import adopt
from training.search.settings import TuneSettings
from training.settings import AdaptSettings

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).parents[3]
PARAMS: dict[str, Any] = {
    "adapt": {
        "held_out": {"samples": 4, "steps": 1},
        "3d": {"settings": {"rank": 2}, "steps": 2, "batch": 1, "learning_rate": 0.01},
    },
    "tune": {
        "dim": "3d",
        "trials": 6,
        "concurrent": 2,
        "cpus": 1,
        "gpus": 0,
        "seed": 0,
        "objectives": ["regional_distance", "trainable"],
        "samples": 4,
        "evaluations": 1,
        "finalists": {"trials": 2, "seeds": 3},
        "space": {
            "methods": {"none": {}, "lora": {"rank": [2, 4]}, "bitfit": {}},
            "steps": [2],
            "mean_shift": [True, False],
            "blocks": "top",
        },
    },
}


@pytest.fixture
def project(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, and a target group whose test subjects have a folder of their own."""
    write_cohort(tmp_path / "data")
    split = tmp_path / "data/split.json"
    content = json.loads(split.read_text())
    ids = content["groups"]["base"]["train"]
    content["groups"]["base"]["train"] = ids[16:]
    content["groups"]["target"] = {"train": ids[:8], "val": ids[8:12], "test": ids[12:16]}
    split.write_text(json.dumps(content))
    tiny_generator("3d").with_provenance({"stage": "train"}).save(tmp_path / "data/models/3d/base")
    YAML().dump(PARAMS, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


def test_a_search_finds_tells_and_adopts_and_reads_no_test_subject(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Noise instead of maps, so that a worker that read them would fail; here it would be seen. Only
    # the hash of the whole cohort may open them.
    content = json.loads(Path("data/split.json").read_text())
    test = content["groups"]["target"]["test"]
    hidden = [path for id in test for path in Path("data/derivatives").rglob(f"*{id}_*.nii.gz")]
    assert len(hidden) >= 2 * len(test)
    for path in hidden:
        path.write_bytes(b"noise")
    monkeypatch.setattr(runs, "lineage", lambda inputs: {})
    opened: list[str] = []
    sys.addaudithook(lambda event, a: opened.append(str(a[0])) if event == "open" else None)
    settings = load(TuneSettings, "tune")
    choice = runs.search(settings)
    assert not [name for name in opened if any(id in name for id in test)]
    train = content["groups"]["target"]["train"]
    assert [name for name in opened if any(id in name for id in train)]

    report = json.loads(Path("data/reports/search/study.json").read_text())
    assert len(report["trials"]) == 6
    assert {one["state"] for one in report["trials"]} == {"done"}
    assert choice.chosen is not None
    assert report["chosen"] == choice.chosen.number
    assert report["said"][0] in capsys.readouterr().out
    methods = [one["config"]["method"] for one in report["trials"][:4]]
    assert methods == ["lora", "none", "bitfit", "none"]
    untrained = report["trials"][1]
    assert untrained["result"]["trainable"] == 0

    page = Path("data/reports/search/study.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")  # names of SVG, not addresses
    assert "Pareto front" in page
    assert report["said"][0].split(":")[0] in page

    client = store.client()
    place = client.search_experiments()[0].experiment_id
    trials = client.search_runs([place], "tags.stage = 'trial'")
    assert {run.info.status for run in trials} == {"FINISHED"}
    assert len(trials) == 6

    # The same command has nothing to do, and comes to the same end; an adapter that was lost with
    # a driver's disk, and its scores, are made again.
    before = choice.scores[choice.chosen.number]
    (lost,) = Path("data/work/studies").glob(f"*/trials/{choice.chosen.number}")
    shutil.rmtree(lost)
    again = runs.search(settings)
    np.testing.assert_allclose(again.scores[choice.chosen.number].by_seed, before.by_seed, 1e-5)
    assert again.chosen is not None
    assert again.chosen.number == choice.chosen.number
    assert len(client.search_runs([place], "tags.stage = 'trial'")) == 6

    # What is adopted and trained in full has the trial's score.
    from training.adapt import adapt
    from training.settings import HeldOutSettings

    (bitfit,) = [one for one in report["trials"] if one["slot"] == 2]
    adopt("3d", parse(AdaptSettings, bitfit["adapt"], "adapt"))
    wanted = load(AdaptSettings, "adapt.3d")
    assert wanted.method == "bitfit"
    adapt("3d", wanted, HeldOutSettings(samples=4, steps=1))
    scores = json.loads(Path("data/reports/adapt-3d.json").read_text())
    assert scores["val_regional_distance_adapted"] == pytest.approx(
        bitfit["result"]["regional_distance"], abs=1e-5
    )
    assert scores["trainable"] == bitfit["result"]["trainable"]
