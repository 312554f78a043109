"""The stage `evaluate`: an audit of a generator of the chain against its group's test subjects.

It writes into data/reports, where <name> is one of `NAMES`:

- metrics-<name>.json: the three headline metrics, see `headline_metrics`
- evaluate-<name>.json: verdicts and all values, see `flat_scores`
- audit-<name>.json: the whole audit, see `evaluation.results`
- report-<name>.html: the audit as a page to read
- gallery-<name>.png, ageing-<name>.png, histograms-<name>.csv: figures
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.params import load
from contracts.paths import DERIVATIVES, MODELS, REPORTS, SPLIT, WORK
from contracts.tracking import resume_run
from evaluation.results import SCHEMA, AuditResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.condition import Condition
    from evaluation.volume_set import VolumeSet
    from models.generator import Generator

# Samples that are drawn at once, which bounds memory.
_BATCH = 2

Name = Literal["base-2d", "base-3d", "adapted-2d", "adapted-3d"]
NAMES: tuple[Name, ...] = ("base-2d", "base-3d", "adapted-2d", "adapted-3d")

# The headline metrics: key in metrics-<name>.json -> name of the finding.
HEADLINE = {
    "kernel_distance": "kernel_distance",
    "copy_share_percent": "copy_share",
    "requested_age_error_years": "adherence",
}


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """The section `evaluate` of params.yaml.

    Parameters
    ----------
    samples : the number of synthetic volumes, which follow the test subjects' ages and sexes.
    steps : network evaluations per volume.
    seed : of the first volume. No other stage uses the seeds from this one on.
    atlas : path of a label image on the cohort's grid, see `evaluation.atlas`; None: the
        cohort's own atlas.
    """

    samples: int
    steps: int
    seed: int
    atlas: str | None = None

    def __post_init__(self) -> None:
        if self.samples < 4 or self.steps < 1:
            raise ValueError("expected samples >= 4 and steps >= 1")


def evaluate(name: Name, settings: EvaluateSettings) -> dict[str, Any]:
    """Audits a generator against its group's test subjects and writes scores, report and figures.

    Returns
    -------
    The content of evaluate-<name>.json, see `flat_scores`.

    Raises
    ------
    UserError : if the generator or the data are missing.
    """
    from cohort.derivatives import Derivatives
    from cohort.split import Manifest
    from contracts.maps import MAPS
    from evaluation.atlas import read_atlas
    from evaluation.audit import Auditor
    from evaluation.gaussian_baseline import gaussian_volumes
    from evaluation.held_out import sample_conditions
    from evaluation.measured_set import MeasuredSet
    from evaluation.membership import losses
    from evaluation.volume_set import VolumeSet
    from models.adapters import adapted

    kind, dim = name.split("-")
    group = "base" if kind == "base" else "target"
    generator = adapted.load(MODELS / dim / kind)
    derivatives, split = Derivatives.open(DERIVATIVES), Manifest.read(SPLIT)

    def real(part: str) -> VolumeSet:
        ids = split.subjects(group, part)
        return VolumeSet(derivatives.load(ids, generator.maps), derivatives.conditions(ids), ids)

    train, val, test = real("train"), real("val"), real("test")
    membership = (losses(generator, train, WORK), losses(generator, test, WORK))
    train, val, test = train.fa_and_md, val.fa_and_md, test.fa_and_md
    conditions, seeds = sample_conditions(test.conditions, settings.samples, settings.seed)
    sampled = _sample(generator, conditions, seeds, settings.steps, name)
    synthetic = VolumeSet(sampled, conditions).fa_and_md
    gaussian = VolumeSet(gaussian_volumes(train, conditions, seeds, MAPS), conditions)
    untrained = VolumeSet(generator.sample_closed_form(conditions, seeds), conditions).fa_and_md

    say(f"evaluate {name}: audit")
    atlas, atlas_name = derivatives.atlas(), "of the cohort"
    if settings.atlas:
        atlas, atlas_name = read_atlas(Path(settings.atlas), derivatives.space), settings.atlas
    elif atlas is None:
        atlas_name = "none: quarters of the brain"
    auditor = Auditor.from_volumes(train, test, derivatives.space, MAPS, atlas)
    made = MeasuredSet.from_volumes(synthetic, auditor.grid)
    yardsticks = {
        "real": MeasuredSet.from_volumes(val, auditor.grid),
        "gaussian": MeasuredSet.from_volumes(gaussian, auditor.grid),
        "untrained": MeasuredSet.from_volumes(untrained, auditor.grid),
        "copies": auditor.train,
        "shuffled": made.with_shuffled_ages(),
    }
    audit = auditor.audit(
        name,
        made,
        yardsticks,
        membership,
        {"digest": generator.digest, "group": group, "steps": settings.steps,
         "seed": settings.seed, "atlas": atlas_name},
    )  # fmt: skip
    shown = {"real (test)": test, "generated": synthetic, "Gaussian": gaussian}
    scores = _write_reports(name, audit, shown, train)
    _log(MODELS / dim / kind / "run.json", scores, name)
    return scores


def _write_reports(
    name: Name, audit: AuditResult, shown: dict[str, VolumeSet], train: VolumeSet
) -> dict[str, Any]:
    """Writes all files about an audit and returns its `flat_scores`.

    Parameters
    ----------
    shown : label -> volumes, for the figures.
    train : the training subjects, which define the white matter of a figure.
    """
    from contracts.maps import MAPS, MD
    from evaluation import figures, report

    REPORTS.mkdir(parents=True, exist_ok=True)
    scores = flat_scores(audit)
    _write_json(REPORTS / f"metrics-{name}.json", headline_metrics(audit))
    _write_json(REPORTS / f"evaluate-{name}.json", scores)
    _write_json(REPORTS / f"audit-{name}.json", audit.to_json())
    gallery, ageing = REPORTS / f"gallery-{name}.png", REPORTS / f"ageing-{name}.png"
    figures.gallery(gallery, shown, MAPS)
    figures.ageing(ageing, shown, train, MAPS)
    figures.histogram_table(REPORTS / f"histograms-{name}.csv", shown, MAPS, MAPS.index(MD))
    pictures = {
        "Generated next to real maps": gallery.read_bytes(),
        "White matter and age": ageing.read_bytes(),
    }
    report.write(REPORTS / f"report-{name}.html", audit, pictures)
    return scores


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def _sample(
    generator: Generator, conditions: list[Condition], seeds: list[int], steps: int, name: str
) -> NDArray[np.float32]:
    import numpy as np

    shape = (len(seeds), len(generator.maps), *generator.space.shape)
    volumes = np.empty(shape, dtype=np.float32)
    batches = [slice(i, i + _BATCH) for i in range(0, len(seeds), _BATCH)]
    for batch in progress(batches, len(batches), f"evaluate {name}: sampling"):
        volumes[batch] = generator.sample(conditions[batch], seeds[batch], steps)
    return volumes


def headline_metrics(audit: AuditResult) -> dict[str, float | None]:
    """Returns the three numbers by which generators are compared at a glance.

    All are differences from held-out real subjects, zero on average for a perfect generator and
    larger for a worse one, rounded to five significant digits:

    - ``kernel_distance``: do the volumes look real?
    - ``copy_share_percent``: are more of them near a training subject than new people are?
    - ``requested_age_error_years``: do they have the age that was asked for? The other two compare
      whole sets, whichever volume was asked for which age: a generator that ignores the requested
      age can have good values of both.

    A metric for which there are too few volumes is None.
    """
    values = {f.name: f.value for answer in audit.answers for f in answer.findings}
    return {
        key: None if math.isnan(values[name]) else float(f"{values[name]:.5g}")
        for key, name in HEADLINE.items()
    }


def flat_scores(audit: AuditResult) -> dict[str, Any]:
    """Returns the verdicts and values of an audit without its details.

    ``metrics`` has the value, interval, verdict and yardsticks of each finding that was computed.
    """
    metrics = {}
    for answer in audit.answers:
        for found in answer.findings:
            # Where there were too few volumes, the audit says how many are needed.
            if math.isnan(found.value):
                continue
            metrics[found.name] = {
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "verdict": found.verdict,
                **found.yardsticks,
            }
    return {
        "schema": SCHEMA,
        "name": audit.name,
        **audit.about,
        "n": dict(audit.n),
        "verdicts": {a.question: a.verdict for a in audit.answers},
        "metrics": metrics,
    }


def _log(record: Path, scores: dict[str, Any], name: str) -> None:
    try:
        run = resume_run(json.loads(record.read_text())["run_id"])
    except UserError as error:  # pulled models were trained elsewhere; the report stands anyway
        say(f"tracking: {error}")
        return
    logged = {}
    for metric, found in scores["metrics"].items():
        logged[f"test/{metric}"] = found["value"]
        for label in ("real", "gaussian", "untrained"):
            if label in found:
                logged[f"test/{metric}_{label}_ref"] = found[label]
    run.metrics(logged)
    run.tags({f"verdict.{q}": verdict for q, verdict in scores["verdicts"].items()})
    for path in sorted(REPORTS.glob(f"*-{name}.*")):
        run.artifact(path, "evaluation")


@command()
@click.option("--name", type=click.Choice(NAMES), required=True, help="Which generator.")
def main(name: str) -> None:
    """Evaluate a generator of the chain; settings are `evaluate` of params.yaml."""
    report = evaluate(cast(Name, name), load(EvaluateSettings, "evaluate"))
    found = report["metrics"]["kernel_distance"]
    verdicts = ", ".join(f"{q} {verdict}" for q, verdict in report["verdicts"].items())
    say(
        f"{name}: {verdicts}; kernel distance {found['value']:.4f}, "
        f"Gaussian baseline {found['gaussian']:.4f}, real {found['real']:.4f}"
    )


if __name__ == "__main__":
    main()
