"""Making an exported volume again from the recipe in its header."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from contracts import volume
from contracts.errors import UserError
from contracts.maps import map_spec
from serving.messages import Sample, SampleRequest, sample_request
from serving.sampling import (
    Model,
    OnStep,
    adapted_model,
    champion_model,
    folder_model,
    sample,
)

# Other processors and library versions round in another way; a share of the map's maximum.
_ROUNDING = 1e-3
_KEYS = ("Dim", "Age", "Sex", "Seeds", "Steps", "Parameter", "ModelDigest", "Threads")


@dataclass(frozen=True, slots=True)
class Replay:
    """A volume made again.

    Parameters
    ----------
    sample : the volume made now.
    difference : largest absolute difference from the first one, in the map's unit; 0 says that
        the values are the same bits.
    """

    sample: Sample
    difference: float


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe of an exported volume.

    Raises
    ------
    UserError : if the file cannot be read or carries no complete recipe of a synthetic volume.
    """
    volume.read(path)
    recipe = volume.read_recipe(path)
    if recipe is None or not recipe.get("Synthetic"):
        raise UserError(f"{path} carries no recipe: expected a file that this service exported")
    missing = [key for key in _KEYS if key not in recipe]
    if missing:
        raise UserError(f"{path}: its recipe is incomplete: {', '.join(missing)} is missing")
    return recipe


def request_of(recipe: dict[str, Any]) -> SampleRequest:
    """The request that a recipe answered; a UserError if its values are not possible."""
    return sample_request(
        {
            "dim": recipe["Dim"],
            "age": recipe["Age"],
            "sex": recipe["Sex"],
            "site": recipe.get("Site"),
            "adapter": recipe.get("Adapter"),
            "strength": recipe.get("Strength", 1.0),
            "seed": recipe["Seeds"][0],
            "steps": recipe["Steps"],
            "map": map_spec(recipe["Parameter"]).name,
            "count": len(recipe["Seeds"]),
        }
    )


def replay(path: Path, folder: Path | None = None, on_step: OnStep | None = None) -> Replay:
    """Make the volume in `path` again and compare.

    Parameters
    ----------
    folder : generator that made it; default the champion.

    Raises
    ------
    UserError : if the generator is not the one of the recipe, or the values differ by more than
        the rounding of another processor or library version.
    """
    recipe = read_recipe(path)
    request = request_of(recipe)
    model = champion_model(request.dim) if folder is None else folder_model(folder)
    _check_digest(adapted_model(model, request.adapter, request.strength), recipe)
    made = sample(model, request, threads=int(recipe["Threads"]), on_step=on_step)
    before, _ = volume.read(path)
    after = _values(made.volume)
    if before.shape != after.shape:
        raise UserError(f"{path}: expected shape {after.shape}, found {before.shape}")
    difference = float(np.abs(before - after).max())
    if difference > _ROUNDING * map_spec(request.map).maximum:
        raise UserError(
            f"{path} differs from its replay by up to {difference:g}: its values were changed, or "
            f"it was made by other software ({recipe.get('Software')}, torch {recipe.get('Torch')})"
        )
    return Replay(made, difference)


def _check_digest(model: Model, recipe: dict[str, Any]) -> None:
    if model.digest != recipe["ModelDigest"]:
        raise UserError(
            f"expected the generator with digest {recipe['ModelDigest']} ({recipe.get('Model')} "
            f"version {recipe.get('ModelVersion')}), which made the volume, found {model.digest} "
            f"({model.name} version {model.version}); give that generator's folder with --model"
        )


def _values(packed: bytes) -> NDArray[np.float32]:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    values: NDArray[np.float32] = np.asarray(image.dataobj, dtype=np.float32)
    return values
