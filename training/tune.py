"""`python -m training.tune`: search how to adapt a base generator.

Two loops: the inner one fits an adapter to the target group's training subjects, the outer one
chooses its settings by the regional distance to the validation subjects. The test subjects are not
touched. `python -m training.tune apply` writes the best settings into params.yaml.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from contracts import closure, paths
from contracts.console import command, say
from contracts.errors import UserError
from contracts.params import PARAMS_FILE, load
from contracts.tracking import EXPERIMENT
from training.settings import AdaptSettings, HeldOutSettings
from training.study import Choices, Effort
from training.trial import Config, rounded

if TYPE_CHECKING:
    from services.tracking import Run
    from training.objective import Inner, Job
    from training.verdict import Verdict

REPORT = paths.REPORTS / "tune" / "trials.json"
_SERVER = "set MLFLOW_TRACKING_URI to a server that they reach"


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Section `tune`.

    Parameters
    ----------
    dim : generator to adapt.
    trials, concurrent, cpus, gpus, seed : see `training.study.Effort`.
    samples : synthetic volumes that score a trial; more make the score steadier.
    max_copy_share : a trial with a larger share of near copies cannot win.
    choices : what may be chosen.
    """

    dim: Literal["2d", "3d"]
    trials: int
    concurrent: int
    cpus: int
    gpus: float
    seed: int
    samples: int
    max_copy_share: float
    choices: Choices

    def __post_init__(self) -> None:
        if min(self.trials, self.concurrent, self.cpus) < 1 or self.samples < 2 or self.gpus < 0:
            raise ValueError("trials, concurrent and cpus must be at least 1, samples 2, gpus 0")

    @property
    def effort(self) -> Effort:
        """How much is tried."""
        return Effort(self.trials, self.concurrent, self.cpus, self.gpus, self.seed)


def tune(settings: TuneSettings, inner: Inner | None = None) -> Verdict:
    """Run or go on with the search and write `data/reports/tune/trials.json`.

    Parameters
    ----------
    inner : the inner loop; default: `training.objective.fit_adapter`.

    Raises
    ------
    UserError : if data or base are missing, the cluster or the tracking store cannot be reached,
        or the search was stopped half-way.
    """
    from services.compute.cluster import cluster
    from services.tracking import store
    from training.objective import fit_adapter
    from training.study import search
    from training.trial import TrialFolder, key_of

    adapt = load(AdaptSettings, f"adapt.{settings.dim}")
    default = rounded({name: adapt.choice(name) for name in Choices.names()})
    settings.choices.require(default)
    job, run = _open(settings, adapt)
    with run:
        if len(TrialFolder(job.trials).finished()) < settings.trials:
            with cluster(cpus=settings.concurrent * settings.cpus) as joined:
                joined.require(settings.cpus, settings.gpus)
                if not joined.local and store.local_folder(job.tracking_uri):
                    say(f"workers on other hosts cannot log to {job.tracking_uri}: {_SERVER}")
                trials = search(
                    job, inner or fit_adapter, settings.choices, default, settings.effort
                )
        else:
            trials = TrialFolder(job.trials).finished()
        verdict = _conclude(settings, job, run, trials, key_of(default), default)
    return verdict


def _open(settings: TuneSettings, adapt: AdaptSettings) -> tuple[Job, Run]:
    from services.tracking.lineage import lineage
    from training.adapt_data import AdaptData
    from training.objective import Job
    from training.trial import key_of

    base = paths.MODELS / settings.dim / "base"
    if not (base / "generator.json").exists():
        raise UserError(f"no generator in {base}; make it with `dvc repro train@{settings.dim}`")
    derivatives, split = paths.DERIVATIVES, paths.SPLIT
    data = AdaptData.load(derivatives, split)
    held_out = replace(load(HeldOutSettings, "adapt.held_out"), samples=settings.samples)
    fixed = {k: v for k, v in asdict(adapt).items() if k not in Choices.names()}
    identity = {
        "code": closure.digest("training.adapt"),
        "base": json.loads((base / "generator.json").read_text())["digest"],
        "data": [data.train.digest, data.val.digest],
        "held_out": asdict(held_out),
        "fixed": fixed,
        "choices": asdict(settings.choices),
    }
    name = f"tune-{settings.dim}-{key_of(identity)}"
    trials = (paths.WORK / name / "trials").resolve()
    trials.mkdir(parents=True, exist_ok=True)
    tags = lineage((base, derivatives, split)) | {"dim": settings.dim}
    run = _sweep(settings, trials.parent / "run.json", tags)
    job = Job(
        base=base.resolve(),
        derivatives=derivatives.resolve(),
        split=split.resolve(),
        trials=trials,
        adapt=adapt,
        held_out=held_out,
        threads=settings.cpus,
        experiment=EXPERIMENT,
        parent=run.id,
        tracking_uri=run.uri,
        tags=tags,
    )
    return job, run


def _sweep(settings: TuneSettings, record: Path, tags: dict[str, str]) -> Run:
    """The run that the trials are nested under: one for a study, however often it goes on."""
    from services.tracking import resume_run, start_run

    if record.exists():
        try:
            return resume_run(json.loads(record.read_text())["run_id"])
        except UserError as error:
            say(f"{error}; a new one is made")
    searched = {key: str(value) for key, value in asdict(settings.choices).items()}
    run = start_run(EXPERIMENT, f"sweep-{settings.dim}", searched, tags | {"stage": "sweep"})
    record.write_text(json.dumps({"run_id": run.id}) + "\n")
    return run


def _conclude(
    settings: TuneSettings, job: Job, run: Run, trials: Any, key: str, default: Config
) -> Verdict:
    from services.tracking import page
    from training import verdict as judging

    shares = judging.importances(trials, settings.choices.distributions())
    verdict = judging.judge(trials, key, settings.max_copy_share, shares)
    best = verdict.best
    content = {
        "dim": settings.dim,
        "study": job.trials.parent.name,
        "max_copy_share": settings.max_copy_share,
        "choices": asdict(settings.choices),
        "default": default,
        "best": None if best is None else best.key,
        "settings": None if best is None else best.config,
        "why": verdict.why,
        "importances": shares,
        "trials": [trial.to_json() for trial in (*verdict.ranking, *verdict.failed)],
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(content, indent=2) + "\n")
    run.artifact(REPORT)
    run.note("# " + "\n\n".join(verdict.why))
    if best is not None:
        run.metrics(
            {"val/regional_distance": best.val_regional_distance, "val/copy_share": best.copy_share}
        )
        run.tags({"best": best.run_id})
    click.echo(judging.table(verdict, key))
    click.echo("\n" + "\n".join(verdict.why))
    for line in page.hints():
        say(line)
    return verdict


def apply(path: Path = PARAMS_FILE) -> None:
    """Write the best settings of the last search into `adapt.<dim>` of params.yaml.

    Comments and everything else in the file stay as they are.

    Raises
    ------
    UserError : if there is no search result, or no trial won.
    """
    from ruamel.yaml import YAML

    if not REPORT.exists():
        raise UserError(f"no {REPORT}; search first: python -m training.tune")
    report = json.loads(REPORT.read_text())
    if report["settings"] is None:
        raise UserError(f"the search chose nothing: {report['why'][0]}")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path.read_text())
    section = document["adapt"][report["dim"]]
    own = {field.name for field in fields(AdaptSettings)}
    for name, value in report["settings"].items():
        place = section if name in own else section.setdefault("settings", {})
        new = [value] if name == "blocks" else value
        if place.get(name) != new:
            click.echo(f"adapt.{report['dim']}: {name}: {place.get(name)} -> {new}")
            if isinstance(place.get(name), list):
                place[name][0] = value  # keeps how the list is written
            else:
                place[name] = new
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as stream:
        yaml.dump(document, stream)
    load(AdaptSettings, f"adapt.{report['dim']}", partial)  # what is written can be read
    partial.replace(path)
    say("next: dvc repro")


@command()
@click.argument("action", type=click.Choice(["search", "apply"]), default="search")
def main(action: str) -> None:
    """Search adapter settings, or apply the best ones to params.yaml.

    A search that is stopped goes on where it was. RAY_ADDRESS names a Ray cluster; without it
    this machine is used.
    """
    if action == "apply":
        apply()
        return
    verdict = tune(load(TuneSettings, "tune"))
    if verdict.best is not None:
        click.echo("\nto use these settings: python -m training.tune apply")


if __name__ == "__main__":
    main()
