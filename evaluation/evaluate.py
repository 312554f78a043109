"""The stage `evaluate`: a generator's samples next to held-out real subjects and yardsticks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import click

from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.params import load

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
    """

    samples: int
    steps: int
    seed: int

    def __post_init__(self) -> None:
        if self.samples < 4 or self.steps < 1:
            raise ValueError("expected samples >= 4 and steps >= 1")


def evaluate(name: Name, settings: EvaluateSettings) -> dict[str, Any]:
    """Score a generator on its group's test subjects and write the report and its figures.

    Raises
    ------
    UserError : if the generator or the data are missing.
    """
    import numpy as np

    from cohort.derivatives import Derivatives
    from cohort.split import Manifest
    from evaluation import figures
    from evaluation.baseline import gaussian_volumes
    from evaluation.held_out import requests
    from evaluation.scores import Cohort, Judge
    from models.generator import Generator

    kind, dim = name.split("-")
    group = "base" if kind == "base" else "target"
    generator = Generator.load(MODELS / dim / kind)
    derivatives, split = Derivatives.open(DERIVATIVES), Manifest.read(SPLIT)

    def real(part: str) -> Cohort:
        ids = split.subjects(group, part)
        return Cohort(derivatives.load(ids, generator.maps), derivatives.conditions(ids))

    train, test = real("train"), real("test")
    conditions, seeds = requests(test.conditions, settings.samples, settings.seed)
    volumes = np.empty((len(seeds), *test.volumes.shape[1:]), dtype=np.float32)
    pairs = range(0, len(seeds), 2)
    for i in progress(pairs, len(pairs), f"evaluate {name}: sampling"):
        volumes[i : i + 2] = generator.sample(
            conditions[i : i + 2], seeds[i : i + 2], settings.steps
        )
    synthetic = Cohort(volumes, conditions)

    baseline = Cohort(gaussian_volumes(train, conditions, seeds, generator.maps), conditions)

    judge = Judge(train, test, generator.maps, derivatives.atlas())
    sets = {"synthetic": synthetic, "real_train": train, "gaussian": baseline}
    scored = {}
    for label in progress(sets, len(sets), f"evaluate {name}: scoring"):
        scored[label] = judge.scores(sets[label])
    metrics = {
        metric: {label: asdict(scored[label][metric]) for label in sets}
        for metric in scored["synthetic"]
    }
    for metric, interval in judge.scores_of_test().items():
        metrics[metric]["real_test"] = asdict(interval)
    report = {
        "name": name,
        "group": group,
        "digest": generator.digest,
        "n_synthetic": len(seeds),
        "n_real_test": len(test.volumes),
        "n_real_train": len(train.volumes),
        "steps": settings.steps,
        "copy_share": {label: judge.copy_share(sets[label]) for label in ("synthetic", "gaussian")},
        "metrics": metrics,
    }
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"evaluate-{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    shown = {"real (test)": test, "generated": synthetic, "Gaussian": baseline}
    figures.gallery(REPORTS / f"gallery-{name}.png", shown, generator.maps)
    figures.ageing(REPORTS / f"ageing-{name}.png", shown, judge.white, generator.maps)
    md = generator.config.maps.index("md")
    figures.histogram_table(REPORTS / f"histograms-{name}.csv", shown, generator.maps, md)
    _log(MODELS / dim / kind / "run.json", report, name)
    return report


def _log(record: Path, report: dict[str, Any], name: str) -> None:
    from services.tracking.run import resume

    try:
        run = resume(json.loads(record.read_text())["run_id"])
    except UserError as error:  # pulled models were trained elsewhere; the report stands anyway
        say(f"tracking: {error}")
        return
    scores = {}
    for metric, sets in report["metrics"].items():
        scores[f"test/{metric}"] = sets["synthetic"]["value"]
        scores[f"test/{metric}_real_ref"] = sets["real_train"]["value"]
        scores[f"test/{metric}_gaussian_ref"] = sets["gaussian"]["value"]
    scores["test/copy_share"] = report["copy_share"]["synthetic"]
    run.metrics(scores)
    for path in sorted(REPORTS.glob(f"*-{name}.*")):
        run.artifact(path, "evaluation")


@command()
@click.option("--name", type=click.Choice(NAMES), required=True, help="Which generator.")
def main(name: str) -> None:
    """Evaluate a generator of the chain; settings are `evaluate` of params.yaml."""
    report = evaluate(cast(Name, name), load(EvaluateSettings, "evaluate"))
    made, gaussian, floor = (
        report["metrics"]["kernel_distance"][label]["value"]
        for label in ("synthetic", "gaussian", "real_train")
    )
    say(
        f"{name}: kernel distance {made:.4f}, Gaussian baseline {gaussian:.4f}, "
        f"real against real {floor:.4f}"
    )


if __name__ == "__main__":
    main()
