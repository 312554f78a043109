"""The stage `train`: fits a base generator of one dimension to the base group."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from contracts import closure, paths
from contracts.condition import Condition
from contracts.console import command, say
from contracts.errors import UserError
from contracts.params import load
from models.config import Dim
from training.settings import TrainSettings

if TYPE_CHECKING:
    from cohort.group_template import GroupTemplate
    from cohort.subjects import SubjectFiles, Subjects
    from cohort.template_estimator import Volumes
    from cohort.template_files import TemplateFiles
    from contracts.tracking import Run
    from models.generator import Generator
    from training.validation import Losses

# A site needs as many subjects for its difference from the others and the spread of its own.
_FEWEST_OF_SITE = 5
# Folders in the work folder: the untrained generator and the trained one.
_START, _TRAINED = "start", "trained"
# What the validation subjects become, in the work folder.
_HELD_OUT = "held-out"


@dataclass(frozen=True, slots=True)
class Task:
    """What each of the processes that train a base generator gets."""

    settings: TrainSettings
    conditions: tuple[Condition, ...]
    held_out: tuple[Condition, ...]
    work: Path
    run: Run


def train(dim: Dim, settings: TrainSettings, workers: int = 1) -> None:
    """Trains, saves to ``data/models/<dim>/base`` and logs the run.

    Parameters
    ----------
    workers : processes that train together, see `services.compute.group.together`.

    Raises
    ------
    UserError : if data are missing, the cluster is too small, or the loss stops being a finite
        number.
    """
    from cohort.stage_output import whole_folder
    from cohort.subjects import SubjectFiles
    from cohort.template_files import TemplateFiles
    from models.generator import Generator
    from services.compute.group import together
    from training import stage

    sites = settings.condition_on_site
    part = SubjectFiles.find(paths.DERIVATIVES, paths.SPLIT, "base", "train", sites)
    held_out = SubjectFiles.find_any(paths.DERIVATIVES, paths.SPLIT, "base", "val", sites)
    if sites:
        held_out = held_out.of_sites(known_sites(settings, part.conditions))
    files = TemplateFiles.open(paths.TEMPLATE)
    everyone = (*part.ids, *held_out.ids)
    code = closure.digest("training.train")
    content = (settings, part.digest, held_out.digest, files.digest(everyone), code)
    out = paths.MODELS / dim / "base"
    with stage.work_folder(f"train-{dim}", *content) as work:
        inputs = (paths.DERIVATIVES, paths.SPLIT, paths.TEMPLATE)
        run, tags = stage.open_run(f"base-{dim}", "train", dim, settings, work.name, inputs)
        with run:
            _prepare(dim, settings, part, held_out, files, work)
            started = time.monotonic()
            task = Task(settings, part.conditions, held_out.conditions, work.resolve(), run)
            losses = together(fit_base, task, workers)
            seconds = time.monotonic() - started
            generator = Generator.load(work / _TRAINED).with_provenance(
                {"stage": "train", "group": "base", "subjects": len(part.ids), **tags}
            )
            with whole_folder(out) as folder:
                generator.save(folder)
                stage.write_json(folder / "run.json", {"run_id": run.id, "tracking_uri": run.uri})
            run.tags({"digest": generator.digest, "group": "base"})
            run.artifact(out / "generator.json")
            if workers > 1:  # the last picture is kept by the handle that logged it
                stage.preview(run, generator, settings.loop.steps)
            parameters = sum(p.numel() for p in generator.denoiser.network.parameters())
            scores: dict[str, Any] = {
                "subjects": len(part.ids),
                "parameters": parameters,
                "steps": settings.loop.steps,
                "kept_step": losses.kept_step,
                "final_loss": round(losses.training, 5),
                "val_loss": losses.best_held_out,
            }
            run.metrics({"train/final_loss": losses.training, "train/seconds": seconds})
            stage.write_json(paths.REPORTS / f"train-{dim}.json", scores)
            curve = paths.REPORTS / f"train-{dim}.csv"
            curve.write_bytes((work / "curve.csv").read_bytes())
    say(
        f"{out}: {parameters / 1e6:.2f} M parameters, loss {losses.training:.3f} "
        "(1 = closed-form Gaussian)"
    )


def _prepare(
    dim: Dim,
    settings: TrainSettings,
    part: SubjectFiles,
    held_out: SubjectFiles,
    files: TemplateFiles,
    work: Path,
) -> None:
    """Writes the untrained generator and what it is trained on to `work`, unless they are there."""
    from models.generator import CONFIG_FILE, Generator
    from training.dataset import TrainingImages

    encoded = part.encoded(paths.WORK)
    displacements = files.displacements(part.ids, work)
    if not (work / _START / CONFIG_FILE).exists():
        template = files.template()
        untrained(dim, settings, part, encoded, displacements, template).save(work / _START)
    prior = Generator.load(work / _START).prior
    TrainingImages.of(prior, encoded, displacements, part.conditions, work)
    if held_out.ids:
        others = held_out.encoded(paths.WORK)
        found = files.displacements(held_out.ids, work / _HELD_OUT)
        TrainingImages.of(prior, others, found, held_out.conditions, work / _HELD_OUT)


def untrained(
    dim: Dim,
    settings: TrainSettings,
    subjects: SubjectFiles | Subjects,
    encoded: Volumes,
    displacements: Volumes,
    template: GroupTemplate,
) -> Generator:
    """Returns a generator that is its prior, with a network still to be trained.

    Parameters
    ----------
    settings : the seed of its loop fixes the network's weights.
    encoded, displacements : of the same subjects, (n, C, X, Y, Z) and (n, 3, X, Y, Z).
    template : to which the subjects are displaced.

    Raises
    ------
    UserError : as `known_sites`.
    """
    import numpy as np
    import torch

    from cohort import channels
    from models.coverage import Coverage
    from models.generator import Generator
    from models.generator_config import GeneratorConfig
    from models.prior.outline import with_fitted_outline
    from models.prior.prior import Prior

    config = GeneratorConfig(
        dim=dim,
        space=subjects.space,
        maps=tuple(m.name for m in subjects.maps),
        network=settings.network,
        diffusion=settings.diffusion,
        coverage=Coverage.of(subjects.conditions),
        drop_condition=settings.loop.drop_condition,
    )
    conditions = subjects.conditions
    sites = known_sites(settings, conditions)
    prior = Prior.fit(template, encoded, displacements, conditions, sites)
    brains = np.stack([channels.brain(volume) for volume in encoded])
    prior = with_fitted_outline(prior, brains, conditions)
    torch.manual_seed(settings.loop.seed)
    return Generator(config, prior)


def known_sites(settings: TrainSettings, conditions: Sequence[Condition]) -> tuple[str, ...]:
    """Returns the sites that the generator tells apart; none without `condition_on_site`.

    Raises
    ------
    UserError : if sites are to be told apart and there is one, or one of too few subjects.
    """
    if not settings.condition_on_site:
        return ()
    counts = Counter(c.site for c in conditions if c.site is not None)
    found = ", ".join(f"{site} ({n})" for site, n in sorted(counts.items())) or "none"
    if len(counts) < 2 or min(counts.values()) < _FEWEST_OF_SITE:
        raise UserError(
            f"condition_on_site: expected two sites or more of {_FEWEST_OF_SITE} training subjects "
            f"or more, found {found}: set it to false, or give small sites one name in "
            "participants.tsv"
        )
    return tuple(sorted(counts))


def fit_base(task: Task) -> Losses:
    """Trains in this process, one of those that do so together; the first one saves.

    Raises
    ------
    UserError : if this process does not see the work folder.
    """
    from models.generator import Generator
    from training import stage
    from training.dataset import TrainingImages
    from training.loop import fit, is_first

    if not task.work.exists():
        raise UserError(f"this worker sees no {task.work}: put the project in a shared folder")
    generator = Generator.load(task.work / _START)
    held_out = None
    if task.held_out:
        held_out = TrainingImages.open(generator.prior, task.held_out, task.work / _HELD_OUT)
    losses = fit(
        generator.denoiser,
        list(generator.denoiser.network.parameters()),
        TrainingImages.open(generator.prior, task.conditions, task.work),
        task.settings.loop,
        task.work,
        stage.Curve(task.run, task.work / "curve.csv"),
        lambda step: stage.preview(task.run, generator, step),
        f"train {generator.dim}",
        held_out=held_out,
    )
    if is_first():
        generator.save(task.work / _TRAINED)
    return losses


@command()
@click.option("--dim", type=click.Choice(["2d", "3d"]), required=True, help="Slices or volumes.")
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that train together, one GPU each; on RAY_ADDRESS or this machine.",
)
def main(dim: str, workers: int) -> None:
    """Train the base generator; settings are `train.<dim>` of params.yaml."""
    train(cast(Dim, dim), load(TrainSettings, f"train.{dim}"), workers)


if __name__ == "__main__":
    main()
