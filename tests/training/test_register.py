from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from contracts.condition import Condition
from contracts.errors import UserError
from services.tracking import registry, start, store
from tests.models.tiny import tiny_generator
from training import register

LINEAGE = {"git.commit": "abc", "git.dirty": "false", "data.data/derivatives": "d1"}


@pytest.fixture
def chain(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[registry.Dim, dict[str, str]]:
    """What the stages before `register` leave behind; run ids by dimension and stage."""
    monkeypatch.chdir(tmp_path)
    runs: dict[registry.Dim, dict[str, str]] = {}
    for number, dim in enumerate(get_args(registry.Dim)):
        runs[dim] = {}
        for place, stage in enumerate(get_args(register.Stage)):
            folder = register.MODELS / dim / stage
            generator = tiny_generator(dim, seed=2 * number + place)
            generator.save(folder)
            with start("e", f"{stage}-{dim}", {"lr": 0.1}, {"stage": stage, **LINEAGE}) as run:
                runs[dim][stage] = run.id
            (folder / "run.json").write_text(json.dumps({"run_id": run.id}))
            fa_error = {"value": 0.02, "low": 0.01, "high": 0.03, "gaussian": 0.03, "real": 0.01}
            report = {
                "digest": generator.digest,
                "n": {"synthetic": 36, "test": 20},
                "verdicts": {"privacy": "pass"},
                "metrics": {"fa_error": fa_error},
            }
            write_json(register.REPORTS / f"evaluate-{stage}-{dim}.json", report)
        report_distances(dim, base=0.5, adapted=0.2)
    return runs


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def report_distances(dim: str, base: float, adapted: float) -> None:
    write_json(
        register.REPORTS / f"adapt-{dim}.json",
        {"val_kernel_distance_base": base, "val_kernel_distance_adapted": adapted},
    )


Chain = dict[registry.Dim, dict[str, str]]


def test_every_version_leads_back_and_the_champion_is_what_was_saved(
    chain: Chain, tracking_uri: str
) -> None:
    report_distances("3d", base=0.2, adapted=0.5)
    register.main()

    written = json.loads(register.REGISTRY.read_text())
    assert [written[dim]["stage"] for dim in ("2d", "3d")] == ["adapted", "base"]
    assert written["2d"]["uri"] == "models:/dti-2d@champion"
    for dim, chosen in (("2d", "adapted"), ("3d", "base")):
        champion = registry.champion(dim)  # type: ignore[arg-type]
        assert champion.digest == written[dim]["digest"]
        for file in (register.MODELS / dim / chosen).glob("*.safetensors"):
            assert (champion.folder / file.name).read_bytes() == file.read_bytes()

    version = registry.find("dti-3d", tiny_generator("3d", seed=3).digest)
    assert version is not None
    assert version.run_id == chain["3d"]["adapted"]
    assert version.tags["gate"] == "failed"
    assert version.tags["base.digest"] == tiny_generator("3d", seed=2).digest
    assert version.tags["test.fa_error"] == "0.02 [0.01, 0.03] (gaussian 0.03, real 0.01)"
    assert LINEAGE.items() <= version.tags.items()


def test_the_same_generators_again_make_no_version_and_move_the_alias(
    chain: Chain, tracking_uri: str
) -> None:
    before = register.register("2d")
    ended = store.client().get_run(chain["2d"]["adapted"]).info.end_time
    report_distances("2d", base=0.1, adapted=0.2)
    after = register.register("2d")

    assert (before["stage"], after["stage"]) == ("adapted", "base")
    assert before["versions"] == after["versions"]
    versions = store.client().search_model_versions("name = 'dti-2d'")
    assert len(versions) == 2
    gates = {version.tags["stage"]: version.tags["gate"] for version in versions}
    assert gates == {"base": "passed", "adapted": "failed"}
    assert store.client().get_run(chain["2d"]["adapted"]).info.end_time == ended


def test_a_registered_model_is_code_and_weights_and_predicts_alone(
    chain: Chain, tracking_uri: str, tmp_path: Path
) -> None:
    """MLflow loads it without this project on the path, and gives what the generator gives."""
    import mlflow.artifacts

    entry = register.register("3d")
    folder = Path(
        mlflow.artifacts.download_artifacts(
            f"models:/dti-3d/{entry['version']}", dst_path=str(tmp_path / "model")
        )
    )
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".pyc", ".pt"}]
    assert "registered_model.py" in {path.name for path in files}

    code = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow.pyfunc, numpy, pandas
rows = {"age": [30.0, 60.0, 45.0], "sex": ["F", "M", "F"], "seed": [1, 2, 3], "steps": [2, 3, 2]}
numpy.save(sys.argv[2], mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame(rows)))
import models
print(models.__path__[0])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(folder), str(tmp_path / "out.npy")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(folder)
    got = np.load(tmp_path / "out.npy")
    generator = tiny_generator("3d", seed=3)
    wanted = [(30.0, "F", 1, 2), (60.0, "M", 2, 3), (45.0, "F", 3, 2)]
    for volume, (age, sex, seed, steps) in zip(got, wanted, strict=True):
        alone = generator.sample([Condition(age, sex)], [seed], steps)[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(volume, alone, atol=1e-6)


def test_a_run_of_another_store_gets_a_stand_in(chain: Chain, tracking_uri: str) -> None:
    write_json(register.MODELS / "2d" / "base" / "run.json", {"run_id": "0" * 32})
    register.register("2d")
    version = registry.find("dti-2d", tiny_generator("2d", seed=0).digest)
    assert version is not None
    run = store.client().get_run(version.run_id)
    assert run.data.tags["source.run"] == "0" * 32


@pytest.mark.parametrize(
    ("base", "adapted", "passed"),
    [(0.5, 0.2, True), (0.2, 0.2, False), (0.2, 0.5, False), (0.2, float("nan"), False)],
)
def test_the_gate_opens_only_to_a_smaller_distance(
    base: float, adapted: float, passed: bool
) -> None:
    assert register.Gate(base, adapted).passed is passed


def test_scores_of_another_generator_are_refused(chain: Chain) -> None:
    path = register.REPORTS / "evaluate-base-2d.json"
    write_json(path, {**json.loads(path.read_text()), "digest": "another"})
    with pytest.raises(UserError, match=r"scores generator another.*dvc repro evaluate@base-2d"):
        register.register("2d")


def test_a_missing_report_names_the_command_that_makes_it(chain: Chain) -> None:
    (register.REPORTS / "adapt-2d.json").unlink()
    with pytest.raises(UserError, match="dvc repro adapt@2d"):
        register.register("2d")
