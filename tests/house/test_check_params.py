"""What `infra/check.sh` writes into params.yaml can be read and searched."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.closure import ROOT
from contracts.params import load, sections
from infra.check_params import TRIAL, cut
from models.adapters.method import method
from training.settings import AdaptSettings, HeldOutSettings
from training.study import Choices
from training.tune import TuneSettings


def test_every_section_of_the_check_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = sections(path)
    cut(path)
    after = sections(path)
    assert {name for name in after if after[name] != before[name]} == {"adapt", "tune"}
    adapt = load(AdaptSettings, "adapt.3d", path)
    tune = load(TuneSettings, "tune", path)
    held_out = load(HeldOutSettings, "adapt.held_out", path)
    assert (held_out.samples, held_out.steps, tune.trials) == (2, 2, 1)
    chosen = {name: adapt.choice(name) for name in Choices.names()}
    tune.choices.require(chosen)
    assert chosen == {**TRIAL, "learning_rate": 1e-3}
    assert method(adapt.method, adapt.settings).settings()["rank"] == 2
