"""The stage `evaluate`: a generator's samples next to held-out real subjects and yardsticks."""

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
from contracts.tracking import resume_run
from evaluation.finding import SCHEMA, Audit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from contracts.condition import Condition
    from models.generator import Generator

Name = Literal["base-2d", "base-3d", "adapted-2d", "adapted-3d"]
NAMES: tuple[Name, ...] = ("base-2d", "base-3d", "adapted-2d", "adapted-3d")
DERIVATIVES = Path("data/derivatives")
SPLIT = Path("data/split.json")
MODELS = Path("data/models")
REPORTS = Path("data/reports")


@dataclass(frozen=True, slots=True)
class EvaluateSettings:
    """Section `evaluate`.

    Parameters
    ----------
    samples : synthetic volumes, spread over the test subjects' ages and sexes.
    steps : network evaluations per volume.
    seed : of the first volume; no other stage uses these.
    atlas : label image on the cohort's grid, see `evaluation.atlas`; default: the cohort's own.
    """

    samples: int
    steps: int
    seed: int
    atlas: str | None = None

    def __post_init__(self) -> None:
        if self.samples < 4 or self.steps < 1:
            raise ValueError("expected samples >= 4 and steps >= 1")


def evaluate(name: Name, settings: EvaluateSettings) -> dict[str, Any]:
    """Audit a generator on its group's test subjects; write scores, report and figures.

    Raises
    ------
    UserError : if the generator or the data are missing.
    """
    from cohort.derivatives import Derivatives
    from cohort.split import Manifest
    from contracts.maps import MAPS, MD
    from evaluation import figures, report
    from evaluation.atlas import read as read_atlas
    from evaluation.audit import Auditor, Subject
    from evaluation.baseline import gaussian_volumes
    from evaluation.cohort import Cohort
    from evaluation.controls import shuffled_ages
    from evaluation.held_out import requests
    from evaluation.membership import losses
    from models.generator import Generator

    kind, dim = name.split("-")
    group = "base" if kind == "base" else "target"
    generator = Generator.load(MODELS / dim / kind)
    derivatives, split = Derivatives.open(DERIVATIVES), Manifest.read(SPLIT)

    def real(part: str) -> Cohort:
        ids = split.subjects(group, part)
        return Cohort(derivatives.load(ids, generator.maps), derivatives.conditions(ids), ids)

    train, val, test = real("train"), real("val"), real("test")
    membership = (losses(generator, train), losses(generator, test))
    train, val, test = train.judged, val.judged, test.judged
    conditions, seeds = requests(test.conditions, settings.samples, settings.seed)
    sampled = _sample(generator, conditions, seeds, settings.steps, name)
    synthetic = Cohort(sampled, conditions).judged
    gaussian = Cohort(gaussian_volumes(train, conditions, seeds, MAPS), conditions)

    say(f"evaluate {name}: audit")
    atlas, named = derivatives.atlas(), "of the cohort"
    if settings.atlas:
        atlas, named = read_atlas(Path(settings.atlas), derivatives.space), settings.atlas
    elif atlas is None:
        named = "none: quarters of the brain"
    auditor = Auditor.of(train, test, derivatives.space, MAPS, atlas)
    made = Subject.of(synthetic, auditor.frame)
    yardsticks = {
        "real": Subject.of(val, auditor.frame),
        "gaussian": Subject.of(gaussian, auditor.frame),
        "copies": auditor.train,
        "shuffled": shuffled_ages(made),
    }
    audit = auditor.audit(
        name,
        made,
        yardsticks,
        membership,
        {"digest": generator.digest, "group": group, "steps": settings.steps,
         "seed": settings.seed, "atlas": named},
    )  # fmt: skip
    REPORTS.mkdir(parents=True, exist_ok=True)
    scores = flat(audit)
    (REPORTS / f"evaluate-{name}.json").write_text(json.dumps(scores, indent=2) + "\n")
    (REPORTS / f"audit-{name}.json").write_text(json.dumps(audit.to_json(), indent=1) + "\n")
    shown = {"real (test)": test, "generated": synthetic, "Gaussian": gaussian}
    figures.gallery(REPORTS / f"gallery-{name}.png", shown, MAPS)
    figures.ageing(REPORTS / f"ageing-{name}.png", shown, train, MAPS)
    md = MAPS.index(MD)
    figures.histogram_table(REPORTS / f"histograms-{name}.csv", shown, MAPS, md)
    pictures = {
        "Generated next to real maps": (REPORTS / f"gallery-{name}.png").read_bytes(),
        "White matter and age": (REPORTS / f"ageing-{name}.png").read_bytes(),
    }
    report.write(REPORTS / f"report-{name}.html", audit, pictures)
    _log(MODELS / dim / kind / "run.json", scores, name)
    return scores


def _sample(
    generator: Generator, conditions: list[Condition], seeds: list[int], steps: int, name: str
) -> NDArray[np.float32]:
    import numpy as np

    shape = (len(seeds), len(generator.maps), *generator.space.shape)
    volumes = np.empty(shape, dtype=np.float32)
    pairs = range(0, len(seeds), 2)
    for i in progress(pairs, len(pairs), f"evaluate {name}: sampling"):
        volumes[i : i + 2] = generator.sample(conditions[i : i + 2], seeds[i : i + 2], steps)
    return volumes


def flat(audit: Audit) -> dict[str, Any]:
    """The scores of an audit without its details, for `dvc metrics` and tags.

    ``metrics`` holds per finding that was computed its value, interval, verdict and yardsticks.
    """
    metrics = {}
    for answer in audit.answers:
        for found in answer.findings:
            if math.isnan(found.value):  # too few volumes; the audit says how many are needed
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
        for label in ("real", "gaussian"):
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
