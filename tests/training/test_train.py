"""The stage `train`, after the stage `template`: one process or two, one model; stopped and started
again, the same."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort.template import make_group_template
from contracts import closure
from contracts.condition import Condition
from contracts.errors import UserError
from models.config import DiffusionConfig, Dim, NetworkConfig
from models.generator import Generator
from services.compute.cluster import Cluster
from services.compute.group import _share, together
from services.tracking import store
from tests.cohort.tiny import write_cohort
from tests.models.tiny import DDPM
from training.settings import LoopSettings, TrainSettings
from training.train import train

SETTINGS = TrainSettings(
    NetworkConfig(channels=(16, 16)),
    DiffusionConfig(),
    LoopSettings(
        steps=6, batch=2, accumulate=2, slices=2, cubes=2, cube_edge=4, warmup=2,
        checkpoint_every=2, seed=3,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage `template` makes of the tiny cohort. Sites do not change it."""
    data = tmp_path_factory.mktemp("data")
    write_cohort(data)
    make_group_template(data / "derivatives", data / "split.json", data / "template", data / "work")
    return data / "template"


@pytest.fixture
def project(
    tmp_path: Path, template: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    write_cohort(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    # Workers import this checkout, wherever the installed package lies.
    monkeypatch.setenv("PYTHONPATH", str(closure.ROOT))
    shutil.copytree(template, tmp_path / "data/template")
    return tmp_path


def weights(project: Path) -> np.ndarray:
    network = Generator.load(project / "data/models/3d/base").denoiser.network
    return np.concatenate([p.detach().numpy().ravel() for p in network.parameters()])


def last_loss(project: Path) -> float:
    with (project / "data/reports/train-3d.csv").open(newline="") as stream:
        return float(list(csv.DictReader(stream))[-1]["loss"])


def test_two_processes_do_what_one_does_with_both_halves(project: Path, tracking_uri: str) -> None:
    train("3d", SETTINGS)
    one, loss = weights(project), last_loss(project)
    halves = replace(SETTINGS, loop=replace(SETTINGS.loop, accumulate=1))
    train("3d", halves, workers=2)
    assert last_loss(project) == pytest.approx(loss, abs=2e-5)  # written with 5 digits
    off = np.abs(weights(project) - one)
    # AdamW divides a gradient by its own size: where it is nearly zero, rounding decides.
    assert (off > 1e-5).mean() < 1e-3
    assert off.max() < SETTINGS.loop.learning_rate
    untrained = replace(SETTINGS, loop=replace(SETTINGS.loop, steps=1, learning_rate=1e-9))
    train("3d", untrained)
    assert np.abs(weights(project) - one).max() > 1e-3
    client = store.client(tracking_uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    left = [path.name for path in (project / "data/work").iterdir()]
    assert sorted(name.split("-")[0] for name in left) == ["encoded", "encoded"]
    rows = (project / "data/reports/train-3d.csv").read_text().splitlines()
    assert len(rows) == 2
    assert json.loads((project / "data/reports/train-3d.json").read_text())["steps"] == 1


def test_a_stopped_stage_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("3d", SETTINGS)
    whole = weights(project)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.stage.preview", stop)
        with pytest.raises(KeyboardInterrupt):
            train("3d", SETTINGS)
    with monkeypatch.context() as patch:  # the start is on disk: it is not made again
        patch.setattr("models.prior.prior.Prior.fit", stop)
        train("3d", SETTINGS)
    np.testing.assert_array_equal(weights(project), whole)


def test_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="--workers"):
        together(str, 7, 1)


def test_workers_share_the_cluster() -> None:
    assert _share(Cluster(True, 9, 0), 2) == {"CPU": 4, "GPU": 0}
    assert _share(Cluster(True, 9, 4), 4) == {"CPU": 2, "GPU": 1}
    with pytest.raises(UserError, match="as many GPUs, the cluster has 4"):
        _share(Cluster(True, 9, 4), 5)
    with pytest.raises(UserError, match="as many CPUs"):
        _share(Cluster(True, 2, 0), 3)


@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize("path", [DiffusionConfig(), DDPM], ids=["flow", "ddpm"])
def test_both_dimensions_and_paths_are_trained_and_sampled(
    project: Path, dim: Dim, path: DiffusionConfig
) -> None:
    train(dim, replace(SETTINGS, diffusion=path))
    generator = Generator.load(project / "data/models" / dim / "base")
    assert generator.config.diffusion == path
    assert generator.prior.map_count == 2
    assert generator.provenance["subjects"] == 24
    report = json.loads((project / "data/reports" / f"train-{dim}.json").read_text())
    assert report["steps"] == 6
    # The prior is worth 1 on the flow; noise is of variance 1.
    assert 0.5 < report["final_loss"] < 1.5
    people = [Condition(30, "F"), Condition(75, "M")]
    volumes = generator.sample(people, [1, 2], 4)
    assert np.isfinite(volumes).all()
    inside = volumes[:, 0] > 0
    # 0.42 of the grid are brain. Its outline is not the network's work.
    assert 0.2 < inside.mean() < 0.6
    np.testing.assert_array_equal(inside, generator.sample_closed_form(people, [1, 2])[:, 0] > 0)
    assert 0.2 < volumes[:, 0][inside].mean() < 0.8


def test_without_a_template_it_says_what_to_run(project: Path) -> None:
    shutil.rmtree(project / "data/template")
    with pytest.raises(UserError, match=r"no group template in .*: run `dvc repro template`"):
        train("3d", SETTINGS)


def test_sites_and_withheld_conditions_are_trained(project: Path) -> None:
    write_cohort(project / "data", sites=("north", "north", "south", "south"))
    loop = replace(SETTINGS.loop, steps=2, drop_condition=0.5)
    train("2d", replace(SETTINGS, loop=loop, condition_on_site=True))
    generator = Generator.load(project / "data/models/2d/base")
    assert generator.sites == ("north", "south")
    assert generator.config.drop_condition == 0.5
    people = [Condition(50, "F", site) for site in ("north", "south", None)]
    volumes = generator.sample(people, [1, 1, 1], 1, guidance=2.0)
    assert not np.array_equal(volumes[0], volumes[1])
    assert set(generator.coverage.sites) == {"north", "south"}


@pytest.mark.parametrize("sites", [("one",), ("one", *["other"] * 23)])
def test_sites_that_cannot_be_told_apart_are_refused(project: Path, sites: tuple[str, ...]) -> None:
    write_cohort(project / "data", sites=sites)
    with pytest.raises(UserError, match=r"two sites or more .* found (one \(24\)|one \(1\), oth)"):
        train("2d", replace(SETTINGS, condition_on_site=True))


def test_validation_subjects_choose_the_weights(project: Path) -> None:
    path = project / "data/split.json"
    content = json.loads(path.read_text())
    everyone = content["groups"]["base"]["train"]
    content["groups"]["base"] |= {"train": everyone[:18], "val": everyone[18:]}
    path.write_text(json.dumps(content))
    loop = replace(SETTINGS.loop, validate_every=2, patience=0)
    train("3d", replace(SETTINGS, loop=loop))
    with (project / "data/reports/train-3d.csv").open(newline="") as stream:
        measured = {int(r["step"]): float(r["val_loss"]) for r in csv.DictReader(stream)}
    assert set(measured) == {2, 4, 6}
    report = json.loads((project / "data/reports/train-3d.json").read_text())
    assert report["val_loss"] == pytest.approx(min(measured.values()), abs=1e-5)
    assert measured[report["kept_step"]] == min(measured.values())
    assert report["subjects"] == 18
