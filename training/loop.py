"""The training loop: the same for a base generator and for an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from contracts.console import progress, say
from contracts.errors import UserError
from models.diffusion.denoiser import Denoiser
from models.diffusion.loss import TrainingLoss
from training.batch import training_batch
from training.dataset import TrainingImages
from training.memory import explained
from training.settings import LoopSettings
from training.validation import Losses, Validation

Log = Callable[[dict[str, float], int], None]
Preview = Callable[[int], None]

_LOG_EVERY = 20
_PREVIEWS = 2


def fit(
    denoiser: Denoiser,
    trainable: Sequence[nn.Parameter],
    data: TrainingImages,
    settings: LoopSettings,
    work: Path,
    log: Log,
    preview: Preview,
    what: str,
    rate_factors: Sequence[float] | None = None,
    held_out: TrainingImages | None = None,
) -> Losses:
    """Trains parameters of a denoiser in place; their moving average remains.

    A run that was stopped goes on from the checkpoint in `work`. The p-th of P processes takes the
    batches p, P + p, 2 P + p ... of a step; a batch's subjects, times and noise are drawn from
    (seed, step, its number) alone. So the run then ends where an uninterrupted one would, and
    where one with other processes would that accumulates as many batches in all (but for
    rounding). With several processes, this is called in each; only the first one writes, logs
    and shows how far it is.

    Parameters
    ----------
    trainable : the parameters; all others of the denoiser are frozen. It ends on the CPU.
    work : folder for `checkpoint.pt`, which is removed by the caller when its work is saved.
    log : called with metrics and the step.
    preview : called with the step `_PREVIEWS` times on the way, the averaged weights in place.
    what : label of the progress bar.
    rate_factors : factor on the learning rate of each parameter; default: 1.
    held_out : subjects that nothing is trained on. The weights that remain are then those of the
        validation with the lowest loss, and training stops early, see `LoopSettings.patience`.

    Raises
    ------
    UserError : if the loss is not a finite number, or memory lacks.
    """
    training_loss = TrainingLoss(denoiser)
    denoiser.network.recompute(settings.recompute)
    accelerator = _accelerator()
    device, main = accelerator.device, accelerator.is_main_process
    for parameter in training_loss.parameters():
        parameter.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        _groups(trainable, rate_factors or [1.0] * len(trainable), settings.learning_rate),
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
    )
    ready = training_loss
    if settings.compile and device.type == "cuda":
        ready = torch.compile(training_loss, dynamic=False)  # type: ignore[assignment]
    ready, prepared = accelerator.prepare(ready, optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, settings=settings))
    average = [p.detach().clone() for p in trainable]
    losses: list[float] = []
    validation = Validation(held_out, settings)
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        losses = _restore(checkpoint, trainable, average, optimizer, schedule, validation)
        if main:
            say(f"{what}: goes on from step {len(losses)}")

    first, processes = accelerator.process_index, accelerator.num_processes
    numbers = range(first, settings.accumulate * processes, processes)
    done = len(losses)
    if not done:
        validation.check(0, training_loss, trainable, device)
        if main and validation.losses:
            log({"val/loss": validation.losses[0]}, 0)
    ready.train()
    steps: Iterable[int] = range(done, done if validation.over else settings.steps)
    batches = (
        training_batch(data, denoiser, settings, step, number, device)
        for step in steps
        for number in numbers
    )
    batch = next(batches, ())
    if main:
        steps = progress(steps, settings.steps, what, done=done)
    for step in steps:
        sums = torch.zeros(2, device=device)
        for number in numbers:
            last = number == numbers[-1]
            with (
                nullcontext() if last else accelerator.no_sync(ready),
                explained(training_loss, trainable, settings, device.type == "cuda"),
            ):
                with accelerator.autocast():
                    error, count = ready(*batch)
                batch = ()  # the backward pass, which needs most memory, does not need it
                accelerator.backward(error)
            sums += torch.stack([error.detach(), count])
            batch = next(batches, ())  # while a GPU is still at work
        # The mean is taken over all values of the step. Accelerate has averaged the gradients of
        # the processes, not summed them.
        total, count = accelerator.reduce(sums, "sum")
        torch._foreach_mul_([p.grad for p in trainable if p.grad is not None], processes / count)
        accelerator.clip_grad_norm_(trainable, settings.clip)
        prepared.step()
        prepared.zero_grad()
        schedule.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update(average, [p.detach() for p in trainable], step)
        losses.append(float(total / count))
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"{what}: the loss is {losses[-1]} at step {step}: lower learning_rate and "
                "run again"
            )
        done = step + 1
        shown = main and done % max(settings.steps // _PREVIEWS, 1) == 0
        if shown or validation.due(done):
            _swap(trainable, average)
            validation.check(done, training_loss, trainable, device)
            if shown:
                preview(done)
            _swap(trainable, average)
            ready.train()
        last_step = done == settings.steps or validation.over
        if main:
            if last_step or done % _LOG_EVERY == 0 or done in validation.losses:
                metrics = {"train/loss": float(np.mean(losses[-_LOG_EVERY:]))}
                if done in validation.losses:
                    metrics["val/loss"] = validation.losses[done]
                log(metrics, done)
            if last_step or done % settings.checkpoint_every == 0:
                _store(checkpoint, trainable, average, optimizer, schedule, losses, validation)
        if last_step:
            break

    accelerator.wait_for_everyone()
    _swap(trainable, average)
    if main and (told := validation.told()):
        say(f"{what}: {told}")
    validation.restore(trainable)
    training_loss.to("cpu")
    denoiser.network.recompute(False)
    denoiser.eval()
    return validation.report(float(np.mean(losses[-max(len(losses) // 10, 1) :])), len(losses))


def _groups(
    parameters: Sequence[nn.Parameter], factors: Sequence[float], rate: float
) -> list[dict[str, Any]]:
    """Returns the parameters as groups of one learning rate each."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter, factor in zip(parameters, factors, strict=True):
        groups.setdefault(factor, []).append(parameter)
    return [{"params": params, "lr": factor * rate} for factor, params in groups.items()]


def is_first() -> bool:
    """Returns whether this is the only process, or the first of several that train together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _accelerator() -> Any:
    """Returns this process's part in the training: device, precision, the other processes."""
    from accelerate import Accelerator

    gpu = torch.cuda.is_available()
    # On CPUs fp32: bf16 is emulated on many of them, slowly and, for this network, down to NaN.
    precision = "bf16" if gpu and torch.cuda.is_bf16_supported() else "no"
    return Accelerator(cpu=not gpu, mixed_precision=precision)


def _swap(trainable: Sequence[nn.Parameter], average: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(trainable, average, strict=True):
            held = parameter.clone()
            parameter.copy_(value)
            value.copy_(held)


def _rate(step: int, settings: LoopSettings) -> float:
    """Returns the share of the learning rate at a step: it rises, holds, and falls to zero."""
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    late = max(0.0, 2 * step / settings.steps - 1)
    return rise * 0.5 * (1 + math.cos(math.pi * late))


def _store(
    path: Path,
    trainable: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    losses: list[float],
    validation: Validation,
) -> None:
    """Writes a checkpoint. (Accelerate's would hold the frozen weights as well.)"""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    content = {
        "weights": [p.detach().cpu() for p in trainable],
        "average": [a.cpu() for a in average],
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "losses": losses,
        "validation": validation.state(),
    }
    torch.save(content, partial)
    partial.replace(path)


def _restore(
    path: Path,
    trainable: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    validation: Validation,
) -> list[float]:
    """Reads a checkpoint; returns the losses so far."""
    # weights_only: tensors and plain values, no code.
    content = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(trainable, content["weights"], strict=True):
            parameter.copy_(value)
        for mean, value in zip(average, content["average"], strict=True):
            mean.copy_(value)
    optimizer.load_state_dict(content["optimizer"])
    schedule.load_state_dict(content["schedule"])
    validation.load_state(content["validation"], average[0].device)
    losses: list[float] = content["losses"]
    return losses
