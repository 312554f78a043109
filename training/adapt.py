"""The stage `adapt`: turn a base generator into one of the target group, by a small adapter."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from contracts import closure, paths
from contracts.console import command, say
from contracts.params import load
from models.config import Dim
from training.settings import AdaptSettings, HeldOutSettings

if TYPE_CHECKING:
    from contracts.tracking import Run
    from models.generator import Generator
    from training.adapt_data import AdaptData
    from training.adapt_group import AdaptGroup


@dataclass(frozen=True, slots=True)
class AdaptResult:
    """What one adaptation came to.

    Parameters
    ----------
    val_regional_distance, copy_share : see `evaluation.held_out.HeldOut`.
    trainable, trainable_share : trained parameters, and how many that is for each parameter of the
        network.
    adapter_bytes : size of the adapter file.
    seconds : of training.
    final_loss, val_loss, kept_step : see `training.validation.Losses`; None where nothing was
        trained.
    """

    val_regional_distance: float
    copy_share: float
    trainable: int
    trainable_share: float
    adapter_bytes: int
    seconds: float
    final_loss: float | None
    val_loss: float | None = None
    kept_step: int | None = None


def adapt_generator(
    base: Generator,
    out: Path,
    settings: AdaptSettings,
    held_out: HeldOutSettings,
    data: AdaptData,
    group: AdaptGroup,
    work: Path,
    run: Run,
) -> AdaptResult:
    """Fit an adapter, score the adapted generator on the validation subjects, save both.

    Parameters
    ----------
    base : a trained generator; it stays as it is.
    out : folder for the adapted generator, ``generator.json`` and ``adapter.safetensors``.
    group : of this base and these data, with the gain and the shift that the settings ask for.
    work : folder for checkpoints.

    Raises
    ------
    UserError : if the base was never trained.
    """
    from models.adapters.adapted import adapted
    from models.adapters.adapter import Adapter
    from models.adapters.files import ADAPTER_FILE, AdapterFile
    from models.adapters.method import method
    from models.coverage import Coverage
    from models.diffusion.denoiser import Denoiser
    from models.generator import Generator
    from training import stage
    from training.loop import fit

    config, prior = base.config, group.prior
    denoiser = Denoiser(
        base.dim, prior, config.network, config.diffusion.path, base.denoiser.null_token
    )
    denoiser.network.load_state_dict(base.denoiser.network.state_dict())
    config = replace(config, coverage=Coverage.of(data.train.conditions), provenance={})
    chosen = method(settings.method, settings.settings)
    adapter = Adapter(denoiser.network, chosen, settings.blocks, settings.seed)
    total = sum(p.numel() for p in base.denoiser.network.parameters())
    loop = replace(
        settings.loop(chosen.learning_rate),
        # The null token has to follow the weights around it.
        drop_condition=config.drop_condition,
    )
    parameters, losses, started = adapter.parameters(), None, time.monotonic()
    if parameters:
        losses = fit(
            denoiser,
            parameters,
            group.train,
            loop,
            work,
            stage.Curve(run, work / "curve.csv"),
            lambda step: stage.preview(run, Generator(config, prior, denoiser), step),
            f"adapt {base.dim}",
            adapter.rate_factors(),
            group.val,
        )
    seconds = time.monotonic() - started
    trainable = sum(p.numel() for p in parameters)
    file = AdapterFile.of(adapter, base.digest, config.coverage, prior, {})
    quality = data.score(adapted(base, [(file, 1.0)]), held_out)
    scores = {
        "val_regional_distance": quality.regional_distance,
        "val_copy_share": quality.copy_share,
    }
    generator = adapted(base, [(replace(file, scores=scores), 1.0)])
    provenance = {
        "stage": "adapt",
        "group": "target",
        "subjects": len(data.train.ids),
        "base": base.digest,
        "settings": asdict(settings),
    }
    generator.with_provenance({**base.provenance, **provenance}).save(out)
    return AdaptResult(
        val_regional_distance=quality.regional_distance,
        copy_share=quality.copy_share,
        trainable=trainable,
        trainable_share=trainable / total,
        adapter_bytes=(out / ADAPTER_FILE).stat().st_size,
        seconds=seconds,
        final_loss=losses and losses.training,
        val_loss=losses and losses.best_held_out,
        kept_step=losses and losses.kept_step,
    )


def adapt(dim: Dim, settings: AdaptSettings, held_out: HeldOutSettings) -> None:
    """Adapt the base of `dim`, save to ``data/models/<dim>/adapted`` and log the run."""
    from cohort.stage_output import whole_folder
    from models.adapters import adapted
    from models.generator import Generator
    from training import stage
    from training.adapt_data import AdaptData
    from training.adapt_group import AdaptGroup

    data = AdaptData.load(paths.DERIVATIVES, paths.SPLIT)
    base, out = paths.MODELS / dim / "base", paths.MODELS / dim / "adapted"
    original: Generator = Generator.load(base)
    before = data.score(original, held_out)
    content = (
        settings,
        data.train.digest,
        original.digest,
        closure.digest("training.adapt"),
    )
    with stage.work_folder(f"adapt-{dim}", *content) as work:
        group = AdaptGroup.of(
            original, data, settings.site_gain, settings.mean_shift, paths.WORK, work
        )
        run, tags = stage.open_run(
            f"{settings.method}-{dim}",
            "adapt",
            dim,
            settings,
            work.name,
            (base, paths.DERIVATIVES, paths.SPLIT),
        )
        with run:
            with whole_folder(out) as folder:
                result = adapt_generator(
                    original, folder, settings, held_out, data, group, work, run
                )
                generator = adapted.load(folder, original)
                generator.with_provenance({**generator.provenance, **tags}).save(folder)
                stage.write_json(folder / "run.json", {"run_id": run.id, "tracking_uri": run.uri})
            run.tags({"digest": generator.digest, "group": "target", "base": original.digest})
            run.artifact(out / "generator.json")
            run.metrics(
                {
                    "val/regional_distance": result.val_regional_distance,
                    "val/copy_share": result.copy_share,
                    "train/seconds": result.seconds,
                    "adapter/trainable": result.trainable,
                    "adapter/bytes": result.adapter_bytes,
                }
            )
            if result.final_loss is not None:
                run.metrics({"train/final_loss": result.final_loss})
            scores = {
                "val_regional_distance_base": before.regional_distance,
                "val_regional_distance_adapted": result.val_regional_distance,
                "val_regional_distance_real": data.held_out.regions.distance(
                    data.train.volumes, data.val.volumes
                ),
                "val_copy_share_adapted": result.copy_share,
                "val_subjects": len(data.val.ids),
                "samples": held_out.samples,
                "trainable": result.trainable,
                "trainable_share": result.trainable_share,
                "adapter_bytes": result.adapter_bytes,
                "final_loss": result.final_loss,
                "val_loss": result.val_loss,
                "kept_step": result.kept_step,
            }
            stage.write_json(paths.REPORTS / f"adapt-{dim}.json", scores)
            curve = work / "curve.csv"
            text = curve.read_text() if curve.exists() else ""
            (paths.REPORTS / f"adapt-{dim}.csv").write_text(text)
    say(
        f"{out}: {result.trainable} parameters trained ({100 * result.trainable_share:.2f} % of "
        f"the network's number); regional distance to target-val "
        f"{before.regional_distance:.4f} -> {result.val_regional_distance:.4f}"
    )


@command()
@click.option("--dim", type=click.Choice(["2d", "3d"]), required=True, help="Slices or volumes.")
def main(dim: str) -> None:
    """Adapt the base generator to the target group; settings are `adapt.<dim>` of params.yaml."""
    settings = load(AdaptSettings, f"adapt.{dim}")
    adapt(cast(Dim, dim), settings, load(HeldOutSettings, "adapt.held_out"))


if __name__ == "__main__":
    main()
