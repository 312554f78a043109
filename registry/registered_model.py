"""A registered generator as MLflow loads it: MLflow runs this file, nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray


class GeneratorModel(PythonModel):
    """`predict` on a table of age, sex, seed and steps gives one volume per map and row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the generator folder that was registered."""
        from models.generator import Generator

        self._generator = Generator.load(Path(context.artifacts["generator"]))

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


# MLflow asks for this call in the file that it runs.
mlflow.models.set_model(GeneratorModel())
