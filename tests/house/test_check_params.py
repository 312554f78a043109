"""What `infra/check.sh` writes into params.yaml can be read and searched."""

from __future__ import annotations

import shutil
from pathlib import Path

from contracts.closure import ROOT
from contracts.params import load, sections
from infra.check_params import BLOCKS, RANK, STEPS, cut
from models.adapters.method import method
from training.search.settings import TuneSettings
from training.search.space import Space
from training.settings import AdaptSettings, HeldOutSettings


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
    (config,) = Space(tune.space, adapt, ("middle.attention",)).hand_picked()
    assert (config["steps"], config["settings"]) == (STEPS, {"rank": RANK})
    assert Space(tune.space, adapt, ()).settings(config).blocks == tuple(BLOCKS)
    assert method(adapt.method, adapt.settings).settings()["rank"] == RANK
