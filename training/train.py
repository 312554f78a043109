"""The stage `train`: fit a base generator of one dimension to the base group."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from contracts.condition import Condition
from contracts.console import command, say
from contracts.errors import UserError
from contracts.params import load
from models.config import Dim
from training.settings import TrainSettings

if TYPE_CHECKING:
    from contracts.tracking import Run
    from models.generator import Generator
    from training.cache import Array
    from training.dataset import Part, Subjects
    from training.framing import Framed
    from training.loop import Log

# A site's difference from the others, and what is left to its subjects' spread.
_FEWEST_OF_SITE = 5
# In the work folder: the untrained generator and the trained one.
_START, _TRAINED = "start", "trained"


@dataclass(frozen=True, slots=True)
class Task:
    """What each of the processes that train a base generator is told."""

    settings: TrainSettings
    conditions: tuple[Condition, ...]
    work: Path
    run: Run


def train(dim: Dim, settings: TrainSettings, workers: int = 1) -> None:
    """Train, save to ``data/models/<dim>/base`` and log the run.

    Parameters
    ----------
    workers : processes that train together, see `services.compute.group.together`.

    Raises
    ------
    UserError : if data are missing, the cluster is too small, or the loss stops being a finite
        number.
    """
    from models.generator import Generator
    from services.compute.group import together
    from training import dataset, stage
    from training.ceiling import ceiling

    sites = settings.condition_on_site
    part = dataset.Part.find(stage.DERIVATIVES, stage.SPLIT, "base", "train", sites)
    out = stage.MODELS / dim / "base"
    with stage.work_folder(f"train-{dim}", settings, part.digest) as work:
        inputs = (stage.DERIVATIVES, stage.SPLIT)
        run, tags = stage.open_run(f"base-{dim}", "train", dim, settings, work.name, inputs)
        with run:
            _prepare(dim, settings, part, work, run)
            started = time.monotonic()
            task = Task(settings, part.conditions, work.resolve(), run)
            loss = together(fit_base, task, workers)
            seconds = time.monotonic() - started
            generator = Generator.load(work / _TRAINED).with_provenance(
                {"stage": "train", "group": "base", "subjects": len(part.ids), **tags}
            )
            generator.save(out)
            stage.write_json(out / "run.json", {"run_id": run.id, "tracking_uri": run.uri})
            run.tags({"digest": generator.digest, "group": "base"})
            run.artifact(out / "generator.json")
            if workers > 1:  # the last picture is kept by the handle that logged it
                stage.preview(run, generator, settings.loop.steps)
            parameters = sum(p.numel() for p in generator.denoiser.network.parameters())
            scores: dict[str, Any] = {
                "subjects": len(part.ids),
                "parameters": parameters,
                "steps": settings.loop.steps,
                "final_loss": round(loss, 5),
            }
            if settings.latent:
                held_out = dataset.load(stage.DERIVATIVES, stage.SPLIT, "base", "val")
                scores["ceiling"] = ceiling(generator, part.load(), held_out)
            run.metrics({"train/final_loss": loss, "train/seconds": seconds})
            stage.write_json(stage.REPORTS / f"train-{dim}.json", scores)
            curve = stage.REPORTS / f"train-{dim}.csv"
            curve.write_bytes((work / "curve.csv").read_bytes())
    say(f"{out}: {parameters / 1e6:.2f} M parameters, loss {loss:.3f} (1 = closed-form Gaussian)")


def _prepare(dim: Dim, settings: TrainSettings, part: Part, work: Path, run: Run) -> None:
    """The untrained generator and what it is trained on, in `work`; kept by an earlier call."""
    from models.generator import CONFIG_FILE, Generator
    from training import stage

    found = framed(settings, part, part.encoded(stage.WORK), stage.WORK)
    if not (work / _START / CONFIG_FILE).exists():
        untrained(
            dim, settings, part, found, work, stage.Curve(run, work / "autoencoder.csv")
        ).save(work / _START)
    start = Generator.load(work / _START)
    found.residuals(start.prior, part.conditions, work)


def untrained(
    dim: Dim,
    settings: TrainSettings,
    subjects: Part | Subjects,
    framed: Framed,
    work: Path,
    log: Log = lambda metrics, step: None,
) -> Generator:
    """A generator that is its prior, with a network still to be trained. Where that sees latents,
    their autoencoder is trained here.

    Parameters
    ----------
    settings : the seed of its loop fixes the network's weights.
    framed : the subjects in the frame of their template, see `framed`.
    work : folder for what training an autoencoder leaves.
    log : of the autoencoder's training.

    Raises
    ------
    UserError : if a 2D generator is to see latents, or as `training.latents.latent_prior`.
    """
    import torch

    from models.coverage import Coverage
    from models.dispersion import dispersed
    from models.generator import Generator
    from models.identity import GeneratorConfig
    from models.latent import LatentPrior
    from models.prior import Prior
    from training.latents import latent_prior

    latent = settings.latent
    if latent and dim == "2d":
        raise UserError("train.2d: latents are for 3D alone: remove train.2d.latent")
    config = GeneratorConfig(
        dim=dim,
        space=subjects.space,
        maps=tuple(m.name for m in subjects.maps),
        network=settings.network,
        path=settings.path,
        coverage=Coverage.of(subjects.conditions),
        drop_condition=settings.loop.drop_condition,
        latent=latent.autoencoder if latent else None,
    )
    frame = framed.frame
    voxels = dispersed(
        Prior.fit(framed.standard, framed.reach, subjects.conditions, frame.sites, frame),
        framed.encoded,
        subjects.conditions,
    )
    prior: Prior | LatentPrior = voxels
    if latent:
        prior = latent_prior(voxels, framed.standard, subjects.conditions, latent, work, log)
    torch.manual_seed(settings.loop.seed)
    return Generator(config, prior)


def framed(
    settings: TrainSettings, subjects: Part | Subjects, encoded: Array, work: Path
) -> Framed:
    """Subjects in the frame of their template, kept in `work`.

    Parameters
    ----------
    encoded : the subjects' volumes as generators see them, (n, C, X, Y, Z).

    Raises
    ------
    UserError : if sites are to be told apart and there is one, or one of too few subjects.
    """
    from training.framing import Framed

    sites = _sites(subjects.conditions) if settings.condition_on_site else ()
    return Framed.of(encoded, subjects.conditions, subjects.space, work, subjects.digest, sites)


def _sites(conditions: Sequence[Condition]) -> tuple[str, ...]:
    counts = Counter(c.site for c in conditions if c.site is not None)
    found = ", ".join(f"{site} ({n})" for site, n in sorted(counts.items())) or "none"
    if len(counts) < 2 or min(counts.values()) < _FEWEST_OF_SITE:
        raise UserError(
            f"condition_on_site: expected two sites or more of {_FEWEST_OF_SITE} training subjects "
            f"or more, found {found}: set it to false, or give small sites one name in "
            "participants.tsv"
        )
    return tuple(sorted(counts))


def fit_base(task: Task) -> float:
    """Train in this process, one of those that do so together; the first one saves.

    Raises
    ------
    UserError : if this process does not see the work folder.
    """
    from models.generator import Generator
    from training import dataset, stage
    from training.loop import fit, is_first

    if not task.work.exists():
        raise UserError(f"this worker sees no {task.work}: put the project in a shared folder")
    generator = Generator.load(task.work / _START)
    loss = fit(
        generator.denoiser,
        list(generator.denoiser.network.parameters()),
        dataset.Residuals.open(generator.prior, task.conditions, task.work),
        task.settings.loop,
        task.work,
        stage.Curve(task.run, task.work / "curve.csv"),
        lambda step: stage.preview(task.run, generator, step),
        f"train {generator.dim}",
    )
    if is_first():
        generator.save(task.work / _TRAINED)
    return loss


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
