"""The stage `train`: fit a base generator of one dimension to the base group."""

from __future__ import annotations

import time
from typing import cast

import click

from contracts.console import command, say
from contracts.params import load
from models.config import Dim
from training.settings import TrainSettings


def train(dim: Dim, settings: TrainSettings) -> None:
    """Train, save to ``data/models/<dim>/base`` and log the run.

    Raises
    ------
    UserError : if data are missing, or the loss stops being a finite number.
    """
    import torch

    from models import representation
    from models.coverage import Coverage
    from models.generator import Generator, GeneratorConfig
    from models.prior import Prior
    from training import dataset, stage
    from training.loop import fit

    subjects = dataset.load(stage.DERIVATIVES, stage.SPLIT, "base", "train")
    out = stage.MODELS / dim / "base"
    name = f"base-{dim}"
    with stage.work_folder(f"train-{dim}", settings, subjects.digest) as work:
        run, tags = stage.open_run(name, "train", dim, settings, work.name)
        with run:
            encoded = representation.encode(subjects.volumes, subjects.masks, subjects.maps)
            reach = representation.reach(subjects.masks)
            prior = Prior.fit(encoded, reach, subjects.conditions)
            torch.manual_seed(settings.loop.seed)
            generator = Generator(
                GeneratorConfig(
                    dim=dim,
                    space=subjects.space,
                    maps=tuple(m.name for m in subjects.maps),
                    network=settings.network,
                    path=settings.path,
                    coverage=Coverage.of(subjects.conditions),
                ),
                prior,
            )
            data = dataset.Residuals.of(generator, subjects)
            started = time.monotonic()
            loss = fit(
                generator.denoiser,
                list(generator.denoiser.network.parameters()),
                data,
                settings.loop,
                work,
                stage.Curve(run, work / "curve.csv"),
                lambda step: stage.preview(run, generator, step),
                f"train {dim}",
            )
            generator = generator.with_provenance(
                {"stage": "train", "group": "base", "subjects": len(subjects.ids), **tags}
            )
            generator.save(out)
            stage.write_json(out / "run.json", {"run_id": run.id, "tracking_uri": run.uri})
            run.tags({"digest": generator.digest, "group": "base"})
            run.artifact(out / "generator.json")
            parameters = sum(p.numel() for p in generator.denoiser.network.parameters())
            scores = {
                "subjects": len(subjects.ids),
                "parameters": parameters,
                "steps": settings.loop.steps,
                "final_loss": round(loss, 5),
            }
            run.metrics({"train/final_loss": loss, "train/seconds": time.monotonic() - started})
            stage.write_json(stage.REPORTS / f"train-{dim}.json", scores)
            curve = stage.REPORTS / f"train-{dim}.csv"
            curve.write_bytes((work / "curve.csv").read_bytes())
    say(f"{out}: {parameters / 1e6:.2f} M parameters, loss {loss:.3f} (1 = closed-form Gaussian)")


@command()
@click.option("--dim", type=click.Choice(["2d", "3d"]), required=True, help="Slices or volumes.")
def main(dim: str) -> None:
    """Train the base generator; settings are `train.<dim>` of params.yaml."""
    train(cast(Dim, dim), load(TrainSettings, f"train.{dim}"))


if __name__ == "__main__":
    main()
