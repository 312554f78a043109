"""Script: `python training/train_unet.py --mode 3D --peft lora` trains on what the chain made.

Without `--peft`, or with `none`, the base generator is trained; with a method, the base is
adapted to the target group. The stages `train` and `adapt` of dvc.yaml do the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: its folder, not the project, leads the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dataclasses import replace
from typing import cast

import click

from contracts.console import command
from contracts.params import load
from models.config import Dim
from training.settings import AdaptSettings, HeldOutSettings, TrainSettings

BASE = "none"


@command()
@click.option("--mode", type=click.Choice(["2D", "3D"], case_sensitive=False), required=True)
@click.option("--peft", default=BASE, show_default=True, help="none, or a method.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps; default: params.yaml.")
@click.option("--rank", type=click.IntRange(min=1), help="Of LoRA and DoRA; default: params.yaml.")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Base only: processes.")
def main(mode: str, peft: str, steps: int | None, rank: int | None, workers: int) -> None:
    """Train the 2D or 3D generator, or adapt it by a method of parameter-efficient fine-tuning."""
    dim = cast(Dim, mode.lower())
    if peft == BASE:
        from training.train import train

        settings = load(TrainSettings, f"train.{dim}")
        if steps is not None:
            settings = replace(settings, loop=replace(settings.loop, steps=steps))
        train(dim, settings, workers)
    else:
        from models.adapters.method import method
        from training.adapt import adapt

        chosen = load(AdaptSettings, f"adapt.{dim}")
        if peft != chosen.method:
            # Settings and learning rate of another method say nothing of this one.
            chosen = replace(chosen, method=peft, settings={}, learning_rate=None)
        given = {"steps": steps, "rank": rank}
        chosen = chosen.with_choices({k: v for k, v in given.items() if v is not None})
        method(chosen.method, chosen.settings)  # told before anything is read
        adapt(dim, chosen, load(HeldOutSettings, "adapt.held_out"))


if __name__ == "__main__":
    main()
