"""Stage `register`: the trained generators become versions of `dti-2d` and `dti-3d`.

Per dimension the base and the adapted generator are registered. The adapted one is the champion
if it passes the gate: its kernel distance to the validation subjects of the target group is
below that of the base. Otherwise the base stays champion.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from contracts.console import command, say
from contracts.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import Model

    from models.generator import Generator
    from services.tracking.registry import Dim

Stage = Literal["base", "adapted"]
MODELS = Path("data/models")
REPORTS = Path("data/reports")
REGISTRY = REPORTS / "registry.json"
# Tags of a training run that its version repeats: they lead back to code, data and parameters.
_LINEAGE = ("git.commit", "git.dirty", "dvc.lock", "params.yaml", "split.digest", "group")


@dataclass(frozen=True, slots=True)
class Gate:
    """The comparison that lets an adapted generator become champion.

    Parameters
    ----------
    base, adapted : kernel distance to the target group's validation subjects; lower is better.
    """

    base: float
    adapted: float

    @property
    def passed(self) -> bool:
        """True only if both are numbers and the adapted one is nearer."""
        return math.isfinite(self.base) and self.adapted < self.base


def main() -> None:
    """Register the generators of both dimensions and write `data/reports/registry.json`."""
    from services.tracking import page, registry

    written = {dim: register(dim) for dim in get_args(registry.Dim)}
    REGISTRY.parent.mkdir(parents=True, exist_ok=True)
    REGISTRY.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
    for entry in written.values():
        click.echo(
            f"{entry['uri']} is version {entry['version']} ({entry['stage']}), {entry['reason']}"
        )
    for line in page.hints():
        say(line)


def register(dim: Dim) -> dict[str, Any]:
    """Register base and adapted generator of one dimension and choose the champion.

    A generator that is registered already (same content) gets no second version.

    Returns
    -------
    The entry of `registry.json`: model, version, uri, digest, stage, gate, reason, and the
    versions of both generators.

    Raises
    ------
    UserError : if a generator or report is missing, or the store does not answer.
    """
    from services.tracking import registry

    gate = read_gate(dim)
    name = registry.model_name(dim)
    generators: dict[Stage, Generator] = {stage: _load(dim, stage) for stage in get_args(Stage)}
    versions: dict[Stage, ModelVersion] = {}
    for stage, generator in generators.items():
        tags = {
            "digest": generator.digest,
            "dim": dim,
            "gate": "passed" if stage == "base" or gate.passed else "failed",
            "stage": stage,
            "val_kernel_distance": f"{getattr(gate, stage):.6g}",
        }
        if stage == "adapted":
            tags["base.digest"] = generators["base"].digest
        versions[stage] = _version(generator, MODELS / dim / stage, tags, gate)
    chosen: Stage = "adapted" if gate.passed else "base"
    version = str(versions[chosen].version)
    registry.promote(name, version)
    relation = "below" if gate.passed else "not below"
    return {
        "model": name,
        "version": version,
        "uri": f"models:/{name}@{registry.ALIAS}",
        "digest": versions[chosen].tags["digest"],
        "stage": chosen,
        "gate": "passed" if gate.passed else "failed",
        "reason": (
            f"adapted kernel distance {gate.adapted:.4g} is {relation} the base's {gate.base:.4g}"
        ),
        "versions": {stage: str(entry.version) for stage, entry in versions.items()},
    }


def read_gate(dim: Dim) -> Gate:
    """The gate's two numbers, from the report of stage `adapt`.

    Raises
    ------
    UserError : if the report is missing or lacks a number.
    """
    path = REPORTS / f"adapt-{dim}.json"
    report = _read(path, f"dvc repro adapt@{dim}")
    try:
        return Gate(
            base=float(report["val_kernel_distance_base"]),
            adapted=float(report["val_kernel_distance_adapted"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: expected the numbers val_kernel_distance_base and "
            f"val_kernel_distance_adapted ({error!r}); run `dvc repro -f adapt@{dim}`"
        ) from error


def headlines(report: dict[str, Any]) -> dict[str, str]:
    """The scores of an evaluation as tags: 95 % interval in brackets, then the two yardsticks.

    Parameters
    ----------
    report : what `evaluation.evaluate` writes.
    """
    n = report["n"]
    tags = {"test.n": f"{n['synthetic']} generated, {n['test']} real"}
    for metric, found in report["metrics"].items():
        tags[f"test.{metric}"] = f"{found['value']:.4g} [{found['low']:.4g}, {found['high']:.4g}]"
        beside = [f"{k} {found[k]:.4g}" for k in ("gaussian", "real") if k in found]
        if beside:
            tags[f"test.{metric}"] += f" ({', '.join(beside)})"
    tags |= {f"verdict.{q}": verdict for q, verdict in report["verdicts"].items()}
    return tags


def _load(dim: Dim, stage: Stage) -> Generator:
    from models.generator import Generator

    folder = MODELS / dim / stage
    if not (folder / "generator.json").exists():
        raise UserError(f"no generator in {folder}; make it with `{_maker(dim, stage)}`")
    return Generator.load(folder)


def _maker(dim: Dim, stage: Stage) -> str:
    return f"dvc repro {'train' if stage == 'base' else 'adapt'}@{dim}"


def _version(generator: Generator, folder: Path, tags: dict[str, str], gate: Gate) -> ModelVersion:
    from services.tracking import registry

    dim, stage = generator.dim, tags["stage"]
    name = registry.model_name(dim)
    known = registry.find(name, generator.digest)
    if known is not None:
        say(f"{name} version {known.version} is this {stage} generator already")
        registry.tag(known, tags)
        return known
    evaluation = _evaluation(generator, f"{stage}-{dim}")
    record = _read(folder / "run.json", _maker(dim, "base" if stage == "base" else "adapted"))
    run_id, lineage = _source(str(record["run_id"]), f"{stage}-{dim}", dim)
    tags = lineage | tags | headlines(evaluation) | {"run_id": run_id}
    return registry.add(
        name,
        lambda path, entity: save_model(generator, folder, path, entity),
        run_id=run_id,
        tags=tags,
        description=_description(tags, gate),
    )


def save_model(generator: Generator, folder: Path, path: Path, entity: Model) -> None:
    """Write a generator folder as an MLflow model: code, safetensors and JSON, no pickle."""
    import shutil
    import warnings

    import mlflow.pyfunc
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    import contracts
    import models

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
            code_paths=[str(Path(room.__path__[0])) for room in (contracts, models)],
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

    packages = ("torch", "monai", "einops", "numpy", "scipy", "safetensors", "nibabel", "pandas")
    # A local label such as +cpu names a build that other machines cannot install.
    return [f"{package}=={version(package).partition('+')[0]}" for package in packages]


def _source(run_id: str, name: str, dim: Dim) -> tuple[str, dict[str, str]]:
    """The run that made a generator, and the part of its tags that a version repeats."""
    from services.tracking import resume, start, store
    from services.tracking.experiment import DEFAULT
    from services.tracking.lineage import lineage

    try:
        run = resume(run_id)
        tags = store.client().get_run(run_id).data.tags
    except UserError:
        # Restored from DVC's cache or trained against another store: a stand-in keeps the link.
        say(f"run {run_id} of {name} is not in this store; a stand-in is made")
        tags = lineage() | {"stage": "registered", "dim": dim, "source.run": run_id}
        with start(DEFAULT, name, {}, tags, key=run_id) as run:
            run.note(f"# Stand-in for run {run_id}, which another store holds")
    kept = {key: tags[key] for key in _LINEAGE if key in tags}
    kept |= {key: value for key, value in tags.items() if key.startswith("data.")}
    return run.id, kept


def _evaluation(generator: Generator, name: str) -> dict[str, Any]:
    path = REPORTS / f"evaluate-{name}.json"
    mend = f"dvc repro evaluate@{name}"
    report = _read(path, mend)
    if report.get("digest") != generator.digest:
        raise UserError(
            f"{path} scores generator {report.get('digest')}, the one at hand is "
            f"{generator.digest}; make it again with `{mend}`"
        )
    return report


_SHOWN = ("test.n", "test.kernel_distance", "test.copy_share")


def _description(tags: dict[str, str], gate: Gate) -> str:
    # PostgreSQL holds 5000 characters; all findings are in the tags `test.*`.
    shown = [k for k in sorted(tags) if not k.startswith("test.") or k in _SHOWN]
    rows = "\n".join(f"| {key} | {tags[key]} |" for key in shown)
    return (
        f"# {tags['stage'].capitalize()} {tags['dim'].upper()} generator of FA and MD maps\n"
        f"Kernel distance to the target group's validation subjects: base {gate.base:.4g}, "
        f"adapted {gate.adapted:.4g} (lower is better). Gate: {tags['gate']}.\n\n"
        f"Input: a table of age, sex, seed, steps. A seed alone fixes its sample.\n\n"
        f"| tag | value |\n|---|---|\n{rows}\n"
    )


def _read(path: Path, mend: str) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"no {path}; make it with `{mend}`") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); make it again with `{mend}`") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object; make it again with `{mend}`")
    return content


@command()
def cli() -> None:
    """Register the generators and choose a champion per dimension."""
    main()


if __name__ == "__main__":
    cli()
