"""What the stages before `register` leave behind, with tiny generators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from contracts.paths import MODELS, REPORTS
from models.adapters.adapted import adapted
from models.config import Dim
from models.generator import Generator
from registry.gate import KINDS, Kind
from services.tracking import start_run
from tests.models.adapters.weights import adapter_file
from tests.models.tiny import tiny_generator

# What a training writes into generator.json of where it came from.
LINEAGE = {"git.commit": "abc", "git.dirty": "false", "data.data/derivatives": "d1.dir"}


def write_chain(dims: tuple[Dim, ...] = get_args(Dim)) -> dict[tuple[Dim, Kind], str]:
    """Write generators, evaluations and gate reports below the working directory.

    Returns
    -------
    The run of each generator, in the store of the moment.
    """
    runs: dict[tuple[Dim, Kind], str] = {}
    for dim in dims:
        for kind in KINDS:
            runs[dim, kind] = write_generator(dim, kind)
        write_distances(dim, base=0.5, adapted=0.2)
    return runs


def made(dim: Dim, kind: Kind, seed: int = 1) -> Generator:
    """What `write_generator` writes; the base is one and the same for all seeds."""
    base = tiny_generator(dim, seed=7)
    if kind == "base":
        return base.with_provenance({**LINEAGE, "group": "base"})
    generator = adapted(base, [(adapter_file(base, seed=seed), 1.0)])
    return generator.with_provenance({**LINEAGE, "group": "target"})


def write_generator(dim: Dim, kind: Kind, seed: int = 1) -> str:
    """Write a generator, its run and its evaluation; returns the run's id."""
    folder = MODELS / dim / kind
    generator = made(dim, kind, seed)
    generator.save(folder)
    with start_run("e", f"{kind}-{dim}", {"lr": 0.1}, {"stage": "train", **LINEAGE}) as run:
        pass
    write_json(folder / "run.json", {"run_id": run.id})
    fa_error = {"value": 0.02, "low": 0.01, "high": 0.03, "gaussian": 0.03, "real": 0.01}
    report = {
        "digest": generator.digest,
        "n": {"synthetic": 36, "test": 20},
        "verdicts": {"privacy": "pass"},
        "metrics": {"fa_error": fa_error},
    }
    write_json(REPORTS / f"evaluate-{kind}-{dim}.json", report)
    return run.id


def write_distances(dim: Dim, base: float, adapted: float) -> None:
    """Write the report that the gate reads."""
    write_json(
        REPORTS / f"adapt-{dim}.json",
        {"val_regional_distance_base": base, "val_regional_distance_adapted": adapted},
    )


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
