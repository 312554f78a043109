"""A generator folder as an MLflow model: code, safetensors and JSON, nothing pickled."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.models import Model

    from models.generator import Generator

# Packages that the rooms of `rooms` import when a generator is loaded and samples.
_PACKAGES = ("torch", "monai", "einops", "numpy", "scipy", "safetensors", "nibabel", "pandas")


def rooms() -> list[Path]:
    """The folders of code that a registered model carries: `models` and what it imports."""
    import cohort
    import contracts
    import models

    return [Path(room.__path__[0]) for room in (contracts, cohort, models)]


def save_model(name: str, generator: Generator, folder: Path, path: Path, entity: Model) -> None:
    """Write a generator folder as an MLflow model.

    That of an adapted generator holds the adapter alone; its base is another version of the
    registered model.

    Parameters
    ----------
    name : of the registered model.
    generator : what `folder` holds; its maps and space make the signature.
    folder : what `Generator.save` wrote.
    path : empty folder that the model is written into.
    entity : MLflow's record of the model, which names its run and id.
    """
    import mlflow.pyfunc
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    columns = [
        ColSpec(DataType.double, "age"),
        ColSpec(DataType.string, "sex"),
        ColSpec(DataType.long, "seed"),
        ColSpec(DataType.long, "steps"),
    ]
    volumes = (-1, len(generator.maps), *generator.space.shape)
    with warnings.catch_warnings():
        # MLflow warns of its own use of pandas, and asks for type hints that it cannot read.
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            path,
            python_model=str(Path(__file__).with_name("registered_model.py")),
            artifacts={"generator": str(folder)},
            model_config={"registered_model": name},
            code_paths=[str(room) for room in rooms()],
            signature=ModelSignature(
                inputs=Schema(columns),
                outputs=Schema([TensorSpec(np.dtype(np.float32), volumes)]),
            ),
            input_example=pd.DataFrame([{"age": 45.0, "sex": "F", "seed": 0, "steps": 16}]),
            pip_requirements=_requirements(),
            mlflow_model=entity,
        )
    for leftover in path.rglob("__pycache__"):
        shutil.rmtree(leftover)


def _requirements() -> list[str]:
    from importlib.metadata import version

    # A local label such as +cpu names a build that other machines cannot install.
    return [f"{package}=={version(package).partition('+')[0]}" for package in _PACKAGES]
