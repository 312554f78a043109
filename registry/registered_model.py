"""A registered generator as MLflow loads it: MLflow runs this file, nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray

if TYPE_CHECKING:
    from models.generator import Generator


class GeneratorModel(PythonModel):
    """`predict` on a table of age, sex, seed and steps gives one volume per map and row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the generator folder that was registered, and the base that it may adapt."""
        from models.adapters import adapted

        folder = Path(context.artifacts["generator"])
        wanted = adapted.base_digest(folder)
        name = context.model_config["registered_model"]
        self._generator = adapted.load(folder, None if wanted is None else _base(name, wanted))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> NDArray[np.float32]:
        """Sample one subject per row.

        Parameters
        ----------
        model_input : table with the columns `age` (years), `sex` (F or M), `seed` and
            `steps` (of the sampler).

        Returns
        -------
        (rows, maps, X, Y, Z) in physical units, in the order of the rows.
        """
        from contracts.condition import condition

        generator = self._generator
        shape = (len(model_input), len(generator.maps), *generator.space.shape)
        volumes = np.empty(shape, dtype=np.float32)
        steps = model_input["steps"].to_numpy()
        for count in np.unique(steps):
            rows = np.flatnonzero(steps == count)
            chosen = model_input.iloc[rows]
            asked = [
                condition(float(age), str(sex))
                for age, sex in zip(chosen["age"], chosen["sex"], strict=True)
            ]
            seeds = [int(seed) for seed in chosen["seed"]]
            volumes[rows] = generator.sample(asked, seeds, int(count))
        return volumes


def _base(name: str, digest: str) -> Generator:
    """Load the version of a registered model that holds a base."""
    import mlflow.artifacts
    from mlflow.models import Model

    from contracts.errors import UserError
    from models.generator import Generator

    for version in mlflow.MlflowClient().search_model_versions(f"name = '{name}'"):
        if version.tags.get("digest") != digest:
            continue
        with TemporaryDirectory() as scratch:
            place = f"models:/{name}/{version.version}"
            folder = Path(mlflow.artifacts.download_artifacts(place, dst_path=scratch))
            flavour = Model.load(folder).flavors["python_function"]
            return Generator.load(folder / flavour["artifacts"]["generator"]["path"])
    raise UserError(
        f"the model adapts the base {digest}, which is no version of {name} in "
        f"{mlflow.get_tracking_uri()}: let MLFLOW_TRACKING_URI name the store that it came from"
    )


# MLflow asks for this call in the file that it runs.
mlflow.models.set_model(GeneratorModel())
