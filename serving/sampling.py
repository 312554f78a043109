"""From a request to the bytes of a NIfTI file; the service and the command line share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts import volume
from contracts.bids import map_name
from contracts.errors import UserError
from contracts.maps import map_spec
from models.config import Dim
from serving.adapters import Adapters
from serving.messages import Sample, SampleRequest

if TYPE_CHECKING:
    from models.generator import Generator

SOFTWARE = "synthetic-dti-maps"
# Sums in another order round in another way, so the number of threads is part of the recipe.
THREADS = 1

OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded generator and the name it goes by.

    Parameters
    ----------
    version : of the registered model; ``unregistered`` for one that came from a folder.
    digest : content hash of the generator.
    adapters : that can be put on its base by name; None for one that came from a folder.
    """

    name: str
    version: str
    digest: str
    generator: Generator
    adapters: Adapters | None = None


def champion_model(dim: Dim) -> Model:
    """The registered champion of a dimension, loaded.

    Raises
    ------
    UserError : if there is none, or its files are not those that were registered.
    """
    from models.adapters import adapted
    from registry.champion import fetch_champion

    found = fetch_champion(dim)
    generator = adapted.load(found.folder)
    digest = generator.digest
    if digest != found.digest:
        raise UserError(
            f"{found.name} version {found.version}: expected digest {found.digest}, found {digest} "
            f"in {found.folder}; delete that folder to have it fetched again"
        )
    base = generator.base if isinstance(generator, adapted.AdaptedGenerator) else generator
    return Model(found.name, found.version, digest, generator, Adapters(base))


def folder_model(folder: Path) -> Model:
    """A generator from its folder; a UserError if there is none."""
    from models.adapters import adapted

    generator = adapted.load(folder)
    return Model(folder.resolve().name, "unregistered", generator.digest, generator)


def adapted_model(model: Model, adapter: str | None, strength: float) -> Model:
    """A model with another adapter on its base, or with its own at another strength.

    Parameters
    ----------
    adapter : alias or version number of a registered adapter; None: the model's own.
    strength : factor on what the adapter changes, from 0 (the base) through 1 (as trained) on.

    Raises
    ------
    UserError : if there is no such adapter, it was made for another base, or a strength is asked of
        a model without any.
    """
    if adapter is None and strength == 1:
        return model
    from models.adapters.adapted import AdaptedGenerator

    version, generator = model.version, model.generator
    if adapter is not None:
        if model.adapters is None:
            raise UserError(
                f"adapter '{adapter}' is a name in the registry, and {model.name} came from a "
                "folder: name the folder of the adapted generator instead, or no folder"
            )
        version, generator = model.adapters.get(adapter)
    if strength != 1:
        if not isinstance(generator, AdaptedGenerator):
            raise UserError(
                f"strength {strength:g} needs an adapter, and {model.name} version {version} is a "
                "base: name an adapter, or leave the strength at 1"
            )
        generator = generator.at(strength)
    return replace(model, version=version, digest=generator.digest, generator=generator)


def describe(model: Model) -> dict[str, Any]:
    """What a model is and makes, as plain values."""
    generator = model.generator
    return {
        "dim": generator.dim,
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "maps": [spec.name for spec in generator.maps],
        "age_coverage": list(generator.age_range),
        "coverage": generator.coverage.to_json(),
        "space": generator.space.to_json(),
        "provenance": generator.provenance,
    }


def sample(
    model: Model, request: SampleRequest, threads: int = THREADS, on_step: OnStep | None = None
) -> Sample:
    """Make the volumes of a request; same model and request, same bytes.

    Parameters
    ----------
    on_step : told (steps done, steps in all) of the sampler; may raise to stop the work.

    Raises
    ------
    UserError : if the model is of another dimension or does not make the requested map; and as
        `adapted_model`.
    """
    _check_dim(model, request)
    model = adapted_model(model, request.adapter, request.strength)
    _check_map(model, request)
    return sample_maps(model, request, [request.map], threads, on_step)[0]


def sample_maps(
    model: Model,
    request: SampleRequest,
    maps: Sequence[str],
    threads: int = THREADS,
    on_step: OnStep | None = None,
) -> list[Sample]:
    """The same volumes as `sample` gives for each of these maps, sampled once.

    Parameters
    ----------
    model : with the adapter that is requested, see `adapted_model`.
    """
    generator = model.generator
    with _torch_threads(threads):
        made = generator.sample(
            [request.condition] * request.count, request.seeds, request.steps, on_step
        )
    known = [spec.name for spec in generator.maps]
    out = []
    for name in maps:
        one = request.model_copy(update={"map": name})
        values = np.moveaxis(made[:, known.index(name)], 0, -1)
        recipe = _recipe(model, one, threads)
        content = volume.encode(
            values[..., 0] if one.count == 1 else values, generator.space, recipe
        )
        file_name = map_name(one.label, generator.space, map_spec(name))
        out.append(Sample(volume=content, recipe=recipe, name=file_name))
    return out


def _check_dim(model: Model, request: SampleRequest) -> None:
    dim = model.generator.dim
    if dim != request.dim:
        raise UserError(f"{model.name} is a {dim} generator: ask for {dim}")


def _check_map(model: Model, request: SampleRequest) -> None:
    known = [spec.name for spec in model.generator.maps]
    if request.map not in known:
        raise UserError(
            f"{model.name} version {model.version} makes {', '.join(known)}, not {request.map}"
        )


def _recipe(model: Model, request: SampleRequest, threads: int) -> dict[str, Any]:
    spec = map_spec(request.map)
    warning = model.generator.coverage.warning(request.condition)
    return {
        "Synthetic": True,
        "Model": model.name,
        "ModelVersion": model.version,
        "ModelDigest": model.digest,
        # The number, since an alias may move to another version.
        **({} if request.adapter is None else {"Adapter": model.version}),
        **({} if request.strength == 1 else {"Strength": request.strength}),
        "Dim": request.dim,
        "Parameter": spec.label,
        "Units": spec.unit or "1",
        "Space": model.generator.space.name,
        "Age": request.age,
        "Sex": request.sex,
        **({} if request.site is None else {"Site": request.site}),
        "Seeds": request.seeds,
        "Steps": request.steps,
        "Precision": "float32",
        "Threads": threads,
        "Software": f"{SOFTWARE} {_version(SOFTWARE)}",
        "Torch": _version("torch"),
        "Warnings": [warning] if warning else [],
    }


@cache
def _version(package: str) -> str:
    return version(package)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
