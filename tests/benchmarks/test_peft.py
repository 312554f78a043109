"""The benchmark of the ways to adapt: what its rows are, and that a small one runs to its end."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from benchmarks import peft
from benchmarks.patients import Patients
from cohort.simulation import disease_truth
from cohort.simulation.disease_truth import Effect
from contracts.errors import UserError
from tests.cohort.tiny import SPACE, write_cohort
from tests.models.tiny import tiny_generator
from training.settings import AdaptSettings, HeldOutSettings

SETTINGS = AdaptSettings(settings={"rank": 2}, steps=2, site_gain=True, learning_rate=0.01)
TRUTH = Path("data/truth.tsv")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A base, and a cohort whose atlas has two regions; the working directory."""
    data = tmp_path / "data"
    write_cohort(data, 32)
    content = json.loads((data / "split.json").read_text())
    ids = content["groups"]["base"]["train"]
    content["groups"] = {
        "base": {"train": ids[18:], "val": [], "test": []},
        "target": {"train": ids[:12], "val": ids[12:15], "test": ids[15:18]},
    }
    (data / "split.json").write_text(json.dumps(content))
    labels = np.zeros(SPACE.shape, dtype=np.int16)
    labels[:4], labels[4:] = 5, 2
    nibabel.Nifti1Image(labels, SPACE.matrix).to_filename(data / "derivatives/atlas_dseg.nii.gz")
    names = "index\tname\n2\tright\n5\tleft\n"
    (data / "derivatives/atlas_dseg.tsv").write_text(names)
    tiny_generator("3d").with_provenance({"stage": "train"}).save(data / "models/3d/base")
    monkeypatch.chdir(tmp_path)
    disease_truth.write(TRUTH, [Effect("left", "fa", -0.1, -2.0), Effect("right", "md", 1e-5, 0.7)])
    return tmp_path


def test_the_truth_is_in_the_order_of_the_regions(project: Path) -> None:
    patients = Patients.load(8, TRUTH)
    np.testing.assert_array_equal(patients.truth, [[0, -2.0], [0.7, 0]])
    np.testing.assert_array_equal(patients.changed, [[False, True], [True, False]])


def test_nobody_is_both_trained_on_and_compared_with(project: Path) -> None:
    patients = Patients.load(8, TRUTH)
    sets = [set(s.ids) for s in (patients.data.train, patients.data.val, patients.others)]
    assert [len(ids) for ids in sets] == [8, 3, 7]
    assert len(set.union(*sets)) == 18


def test_too_few_patients_are_told(project: Path) -> None:
    with pytest.raises(UserError, match=r"expected 13 training subjects .* found 12"):
        Patients.load(13, TRUTH)
    with pytest.raises(UserError, match="disease_effect above 0"):
        Patients.load(8, Path("elsewhere.tsv"))


def test_scores_tell_a_changed_region_from_others(project: Path) -> None:
    patients = Patients.load(8, TRUTH)
    real = patients.others.volumes
    assert patients.scores(real, None)["regional_distance"] == 0
    made = real.copy()
    made[:, 0, :4] -= 2 * patients.regions.spread[0, 1] * (made[:, 0, :4] > 0)
    found = patients.scores(made, real)
    assert found["d_md"] == pytest.approx(0, abs=1e-6)
    assert found["d_fa"] == pytest.approx(2, rel=0.01)
    assert found["d_unchanged"] == pytest.approx(0, abs=1e-6)
    assert found["correlation"] > 0.9


def test_a_small_one_runs_and_goes_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft, "METHODS", ("lora", "full"))
    monkeypatch.setattr(peft, "_OBJECTIVE_SEEDS", [0, 1])
    monkeypatch.setattr(peft, "_HELD_OUT", HeldOutSettings(2, 1))
    patients = Patients.load(8, TRUTH)
    rows = list(peft.rows("3d", patients, SETTINGS, 2, tmp_path / "work"))
    names = [peft.GAIN, "none", "lora", "full", peft.SCRATCH]
    assert [row["name"] for row in rows] == [*names * 2, peft.BASE, "real patients"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["none"]["trainable"] == 0
    assert 0 < by_name["lora"]["trainable"] < by_name["full"]["trainable"]
    assert by_name[peft.SCRATCH]["scores"] != by_name["full"]["scores"]
    again = list(peft.rows("3d", patients, SETTINGS, 2, tmp_path / "work"))
    assert json.dumps(again) == json.dumps(rows)
    summary = peft.summarised(rows)
    assert [row["name"] for row in summary] == [peft.BASE, *names, "real patients"]
    two = [row["scores"]["d_fa"] for row in rows if row["name"] == "lora"]
    lora = next(row for row in summary if row["name"] == "lora")
    assert (lora["scores"]["d_fa"]["low"], lora["scores"]["d_fa"]["high"]) == (min(two), max(two))
    assert lora["trainings"] == 2
