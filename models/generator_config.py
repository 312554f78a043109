"""All that generator.json holds: settings, grid, maps, coverage and provenance of a generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from contracts.errors import UserError
from contracts.maps import map_spec
from contracts.params import parse
from contracts.space import Space
from models.config import DiffusionConfig, Dim, NetworkConfig
from models.coverage import Coverage

FORMAT = 11


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What a generator is, beside its weights.

    Parameters
    ----------
    dim : ``2d`` (slice-wise network) or ``3d`` (volume-wise).
    space : grid of its volumes.
    maps : names of its maps, in channel order.
    coverage : whom it was trained on.
    drop_condition : share of training volumes whose condition was withheld from the network; 0:
        it has no null token and cannot be guided.
    provenance : where it comes from (data, parameters, run); not part of its digest.
    """

    dim: Dim
    space: Space
    maps: tuple[str, ...]
    network: NetworkConfig
    diffusion: DiffusionConfig
    coverage: Coverage
    drop_condition: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)


def sampling_config(config: GeneratorConfig, sites: Sequence[str]) -> dict[str, Any]:
    """Returns the part of a configuration that shapes samples, in plain values."""
    return {
        "format": FORMAT,
        "dim": config.dim,
        "space": config.space.to_json(),
        "maps": [
            {"name": m.name, "unit": m.unit, "scale": m.scale} for m in map(map_spec, config.maps)
        ],
        "network": asdict(config.network),
        "diffusion": asdict(config.diffusion),
        "drop_condition": config.drop_condition,
        "sites": list(sites),
    }


def to_json(config: GeneratorConfig, sites: Sequence[str]) -> dict[str, Any]:
    """Returns the whole configuration in plain values, with the sites of its prior."""
    return {
        "identity": sampling_config(config, sites),
        "coverage": config.coverage.to_json(),
        "provenance": config.provenance,
    }


def from_json(content: dict[str, Any]) -> tuple[GeneratorConfig, tuple[str, ...]]:
    """Inverse of `to_json`.

    Raises
    ------
    UserError : if another version wrote it, or scaled maps otherwise.
    """
    stored = content["identity"]
    if stored["format"] != FORMAT:
        raise UserError(
            f"generator format {stored['format']} is not {FORMAT}: use the version of this "
            "software that wrote it, or train it again"
        )
    for one in stored["maps"]:
        if map_spec(one["name"]).scale != one["scale"]:
            raise UserError(f"map {one['name']} was scaled by {one['scale']} in training")
    config = GeneratorConfig(
        dim=stored["dim"],
        space=Space.from_json(stored["space"]),
        maps=tuple(m["name"] for m in stored["maps"]),
        network=parse(NetworkConfig, stored["network"], "network"),
        diffusion=parse(DiffusionConfig, stored["diffusion"], "diffusion"),
        coverage=Coverage.from_json(content.get("coverage", {})),
        drop_condition=stored["drop_condition"],
        provenance=content["provenance"],
    )
    return config, tuple(stored["sites"])
