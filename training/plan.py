"""What fits into memory: `python -m training.plan --mode 3D --peft lora --voxel 2 --memory 16GB`.

Nothing has to be trained or prepared before: shapes alone are needed, see `training.memory`.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from contracts.console import command
from contracts.errors import UserError
from contracts.params import load
from contracts.space import mni_space
from models.config import Dim
from training.settings import AdaptSettings, LoopSettings, TrainSettings

if TYPE_CHECKING:
    from training.memory import Choice, Need
    from training.stand_in import Training

BASE = "none"
_UNITS = {"MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
# Python, torch and its libraries on a CPU; torch and a CUDA context on a GPU.
_LIBRARIES = {False: 9 * 10**8, True: 6 * 10**8}


def parsed(text: str) -> int:
    """Returns bytes of a size such as ``16GB``.

    Raises
    ------
    UserError : if it is not a number with MB, GB, MiB or GiB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise UserError(f"--memory {text}: expected a number with MB, GB, MiB or GiB, such as 16GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def plan(ready: Training, loop: LoopSettings, memory: int, gpu: bool) -> Choice | None:
    """Returns what fits into so many bytes, on a GPU in bf16; None: nothing does."""
    from training.memory import choose, need

    def need_of(settings: LoopSettings) -> Need:
        return need(ready.loss, ready.trainable, settings, bf16=gpu)

    return choose(need_of, loop, memory - _LIBRARIES[gpu])


def report(choice: Choice, gpu: bool, seconds: float | None, subjects: int) -> str:
    """Returns the plan in lines, with what it takes for granted.

    Parameters
    ----------
    seconds : of a step, measured on this machine; None: not measured.
    """
    found = choice.need
    lines = [
        f"batch: {choice.batch}",
        f"recompute: {str(choice.recompute).lower()}",
        f"precision: {'bf16' if gpu else 'fp32'}",
        f"peak: {(found.total + _LIBRARIES[gpu]) / 1e9:.2f} GB, in the {found.part} pass: "
        f"libraries {_LIBRARIES[gpu] / 1e9:.2f}, loaded {found.loaded / 1e9:.2f}, "
        f"optimizer and average {found.state / 1e9:.2f}, step {found.step / 1e9:.2f}",
    ]
    if seconds is not None:
        epoch = seconds * subjects / choice.batch
        lines.append(f"epoch of {subjects} subjects: {epoch:.0f} s on this machine's CPU")
    lines += [
        "This takes for granted:",
        "- maps FA and MD; network, slices and cubes of params.yaml",
        "- AdamW and a moving average in fp32",
        "- a tenth of the memory stays free, for gaps of the allocator",
        f"- libraries take {_LIBRARIES[gpu] / 1e9:.1f} GB",
    ]
    if gpu:
        lines.append("- bf16 by the rules of CPUs; not compared with a GPU's own count yet")
    return "\n".join(lines)


@command()
@click.option("--mode", type=click.Choice(["2D", "3D"], case_sensitive=False), required=True)
@click.option("--peft", default=BASE, show_default=True, help="none (the base), or a method.")
@click.option("--voxel", type=float, default=4.0, show_default=True, help="Edge in mm.")
@click.option("--memory", required=True, help="Such as 16GB; of the GPU with --gpu.")
@click.option("--gpu", is_flag=True, help="For a GPU, in bf16.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="At most.")
@click.option("--subjects", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--no-time", is_flag=True, help="Do not measure a step.")
def main(
    mode: str, peft: str, voxel: float, memory: str, gpu: bool, batch: int, subjects: int,
    no_time: bool,
) -> None:  # fmt: skip
    """Tell which batch fits, whether to compute activations again, and where the peak stands."""
    from training.stand_in import training

    dim = cast(Dim, mode.lower())
    available = parsed(memory)
    settings = load(TrainSettings, f"train.{dim}")
    loop, options = settings.loop, {}
    if peft != BASE:
        chosen = load(AdaptSettings, f"adapt.{dim}")
        options = dict(chosen.settings) if peft == chosen.method else {}
        loop = chosen.loop(1e-3)
    ready = training(dim, mni_space(voxel), settings.network)
    if peft != BASE:
        ready = ready.adapted(peft, options)
    choice = plan(ready, replace(loop, batch=batch), available, gpu)
    if choice is None:
        raise UserError(
            f"{memory} does not hold a batch of one: take larger voxels, fewer channels, or fewer "
            f"slices (2D) or smaller cubes (3D) of train.{dim}.loop"
        )
    seconds = None if no_time or gpu else _step(ready, loop, choice)
    click.echo(report(choice, gpu, seconds, subjects))


def _step(ready: Training, loop: LoopSettings, choice: Choice) -> float:
    """Returns the seconds of a step of the planned batch, from one of a single volume."""
    import torch

    from training.batch import training_batch

    denoiser = ready.loss.denoiser
    denoiser.network.recompute(choice.recompute)
    for parameter in ready.trainable:
        parameter.requires_grad_(True)
    one = replace(loop, batch=1)
    batch = training_batch(ready.data, denoiser, one, 0, 0, torch.device("cpu"))
    seconds = []
    for _ in range(2):  # the first one sets up what is made once
        begun = time.perf_counter()
        error, _ = ready.loss(*batch)
        torch.autograd.backward(error)
        seconds.append(time.perf_counter() - begun)
    denoiser.network.recompute(False)
    return min(seconds) * choice.batch


if __name__ == "__main__":
    main()
