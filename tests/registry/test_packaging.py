"""A registered model stands alone: it is loaded where this project is not installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from contracts.condition import Condition
from models.config import Dim
from registry import packaging, versions
from registry.description import read_description
from registry.reconciliation import reconcile
from tests.registry.chain import made, write_chain

ROOT = Path(packaging.__file__).parents[1]
DIM: Dim = "3d"


def test_it_is_code_and_weights_and_predicts_alone(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow loads it without this project on the path, and gives what the generator gives.

    It is an adapter, whose base MLflow has to bring.
    """
    import mlflow.artifacts

    monkeypatch.chdir(tmp_path)
    write_chain((DIM,))
    reconcile(read_description(DIM))
    folder = Path(
        mlflow.artifacts.download_artifacts(
            f"models:/{versions.model_name(DIM)}@champion", dst_path=str(tmp_path / "model")
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
import cohort, contracts, models
print(models.__path__[0], cohort.__path__[0], contracts.__path__[0], sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(folder), str(tmp_path / "out.npy")],
        check=True,
        capture_output=True,
        text=True,
    )
    for place in done.stdout.split():
        assert Path(place).is_relative_to(folder)
    got = np.load(tmp_path / "out.npy")
    generator = made(DIM, "adapted")
    wanted = [(30.0, "F", 1, 2), (60.0, "M", 2, 3), (45.0, "F", 3, 2)]
    for volume, (age, sex, seed, steps) in zip(got, wanted, strict=True):
        alone = generator.sample([Condition(age, sex)], [seed], steps)[0]  # type: ignore[arg-type]
        np.testing.assert_allclose(volume, alone, atol=1e-6)


def test_every_room_that_a_carried_room_imports_is_carried() -> None:
    carried = {room.name for room in packaging.rooms()}
    ours = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    imported: set[str] = set()
    for room in packaging.rooms():
        for path in room.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {name.name.partition(".")[0] for name in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.partition(".")[0])
    assert imported & ours <= carried
