"""What the files of the chain say that the registry should hold: versions, tags and champion.

Everything here follows from `data/models`, `data/reports` and `dvc.lock`, nothing from MLflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.errors import UserError
from contracts.paths import MODELS, REPORTS
from models.config import Dim
from registry.gate import KINDS, Gate, Kind, read_gate, read_object
from registry.versions import model_name

if TYPE_CHECKING:
    from models.generator import Generator

# What the training wrote into generator.json and a version repeats, beside the tags `data.`.
PROVENANCE = ("git.commit", "git.dirty", "params.yaml", "group")
# Tags that are removed from a version when the files no longer say them.
_PREFIXES = ("data.", "test.", "verdict.")
# PostgreSQL holds 5000 characters of a description: these scores are shown, all are tags.
_SHOWN = ("test.n", "test.kernel_distance", "test.copy_share")


@dataclass(frozen=True, slots=True)
class VersionDescription:
    """What the files say of one trained generator.

    Parameters
    ----------
    name : as evaluations name it, e.g. ``adapted-3d``.
    folder : of the generator.
    generator : what the folder holds.
    run_id : the run that trained it.
    tags : of its version.
    text : the Markdown that MLflow shows beside the version.
    """

    name: str
    folder: Path
    generator: Generator
    run_id: str
    tags: dict[str, str]
    text: str

    @property
    def digest(self) -> str:
        """Content hash of the generator."""
        return self.tags["digest"]

    @property
    def alias(self) -> str:
        """The name of its version: the group that it generates, ``base`` or ``target``."""
        return self.tags.get("group", self.tags["kind"])

    @property
    def lineage(self) -> dict[str, str]:
        """The tags that name the data that was read and made."""
        return {key: value for key, value in self.tags.items() if key.startswith("data.")}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What the files say of one registered model.

    Parameters
    ----------
    name : of the registered model.
    versions : of the base and the adapted generator.
    """

    name: str
    gate: Gate
    versions: dict[Kind, VersionDescription]

    def to_json(self) -> dict[str, Any]:
        """Its entry in `data/reports/registry.json`; the same wherever the files are the same."""
        return {
            "model": self.name,
            "champion": self.gate.champion,
            "digest": self.versions[self.gate.champion].digest,
            "digests": {kind: version.digest for kind, version in self.versions.items()},
            "gate": self.gate.verdict("adapted"),
            "reason": self.gate.reason,
        }


def read_description(dim: Dim) -> ModelDescription:
    """Read the generators of one dimension, their evaluations and the gate.

    Raises
    ------
    UserError : if a file is missing or damaged, or an evaluation is of another generator.
    """
    from services.tracking.hashes import content_hashes

    gate = read_gate(dim)
    base = _load(dim, "base")
    generators: dict[Kind, Generator] = {"base": base, "adapted": _load(dim, "adapted", base)}
    hashes = content_hashes([MODELS / dim / kind for kind in KINDS])
    versions: dict[Kind, VersionDescription] = {}
    for kind, generator in generators.items():
        folder = MODELS / dim / kind
        record = read_object(folder / "run.json", _maker(dim, kind))
        provenance = generator.provenance
        tags = {
            **{key: str(provenance[key]) for key in PROVENANCE if key in provenance},
            **_lineage(generator, folder, hashes[folder]),
            **score_tags(_evaluation(generator, f"{kind}-{dim}")),
            "digest": generator.digest,
            "dim": dim,
            "gate": gate.verdict(kind),
            "kind": kind,
            "source.run": str(record["run_id"]),
            "val_regional_distance": f"{gate.distance(kind):.6g}",
        }
        if kind == "adapted":
            tags["base.digest"] = base.digest
        versions[kind] = VersionDescription(
            name=f"{kind}-{dim}",
            folder=folder,
            generator=generator,
            run_id=tags["source.run"],
            tags=tags,
            text=_text(tags, gate),
        )
    return ModelDescription(model_name(dim), gate, versions)


def owned(tag: str) -> bool:
    """Whether a tag of a version is one of those that follow from the files."""
    return tag.startswith(_PREFIXES)


def score_tags(report: dict[str, Any]) -> dict[str, str]:
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


def _lineage(generator: Generator, folder: Path, made: str) -> dict[str, str]:
    """The tags of the data that a training read and made.

    They are those of the entry in `dvc.lock` if that recorded the folder at hand; else what the
    training itself wrote down of its inputs, and the folder.

    Parameters
    ----------
    made : DVC's hash of the folder.
    """
    from services.tracking.lineage import data_tag, recorded_tags

    known = generator.provenance
    read = {key: str(known[key]) for key in known if key.startswith("data.")}
    return recorded_tags(folder, made) or read | {data_tag(folder): made}


def _load(dim: Dim, kind: Kind, base: Generator | None = None) -> Generator:
    from models.adapters import adapted

    folder = MODELS / dim / kind
    if not (folder / "generator.json").exists():
        raise UserError(f"no generator in {folder}; make it with `{_maker(dim, kind)}`")
    return adapted.load(folder, base)


def _maker(dim: Dim, kind: Kind) -> str:
    return f"dvc repro {'train' if kind == 'base' else 'adapt'}@{dim}"


def _evaluation(generator: Generator, name: str) -> dict[str, Any]:
    path = REPORTS / f"evaluate-{name}.json"
    mend = f"dvc repro evaluate@{name}"
    report = read_object(path, mend)
    if report.get("digest") != generator.digest:
        raise UserError(
            f"{path} scores generator {report.get('digest')}, the one at hand is "
            f"{generator.digest}; make it again with `{mend}`"
        )
    return report


def _text(tags: dict[str, str], gate: Gate) -> str:
    shown = [k for k in sorted(tags) if not k.startswith("test.") or k in _SHOWN]
    rows = "\n".join(f"| {key} | {tags[key]} |" for key in shown)
    return (
        f"# {tags['kind'].capitalize()} {tags['dim'].upper()} generator of FA and MD maps\n"
        f"Kernel distance to the target group's validation subjects: base {gate.base:.4g}, "
        f"adapted {gate.adapted:.4g} (lower is better). Gate: {tags['gate']}.\n\n"
        f"Input: a table of age, sex, seed, steps. A seed alone fixes its sample.\n\n"
        f"| tag | value |\n|---|---|\n{rows}\n"
    )
