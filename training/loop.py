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
from models.diffusion.loss import errors
from models.prior.mean_shift import MeanShift
from training.dataset import Residuals
from training.settings import LoopSettings

Log = Callable[[dict[str, float], int], None]
Preview = Callable[[int], None]
Batch = tuple[Tensor | None, ...]

_LOG_EVERY = 20
_PREVIEWS = 2


class _Objective(nn.Module):
    """The errors as a module, so that data-parallel training synchronises its gradients."""

    def __init__(self, denoiser: Denoiser, shift: MeanShift | None = None) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.shift = shift

    def forward(self, residual: Tensor, *batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of the errors of a batch, and the number of values summed."""
        if self.shift is not None:
            residual = (residual - self.shift()) * self.denoiser.mask
        total, count = errors(self.denoiser, residual, *batch)
        return total.sum(), count.sum()


def fit(
    denoiser: Denoiser,
    trainable: Sequence[nn.Parameter],
    data: Residuals,
    settings: LoopSettings,
    work: Path,
    log: Log,
    preview: Preview,
    what: str,
    rate_factors: Sequence[float] | None = None,
    shift: MeanShift | None = None,
) -> float:
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
    shift : taken from the residuals; `trainable` names its parameter if it is to be trained.

    Returns
    -------
    Mean training loss of the last tenth of the steps.

    Raises
    ------
    UserError : if the loss is not a finite number.
    """
    objective = _Objective(denoiser, shift)
    denoiser.network.recompute(settings.recompute)
    accelerator = _accelerator()
    device, main = accelerator.device, accelerator.is_main_process
    for parameter in objective.parameters():
        parameter.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        _groups(trainable, rate_factors or [1.0] * len(trainable), settings.learning_rate),
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
    )
    ready = objective
    if settings.compile and device.type == "cuda":
        ready = torch.compile(objective, dynamic=False)  # type: ignore[assignment]
    ready, prepared = accelerator.prepare(ready, optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_rate, settings=settings))
    average = [p.detach().clone() for p in trainable]
    losses: list[float] = []
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        losses = _restore(checkpoint, trainable, average, optimizer, schedule)
        if main:
            say(f"{what}: goes on from step {len(losses)}")

    ready.train()
    first, processes = accelerator.process_index, accelerator.num_processes
    numbers = range(first, settings.accumulate * processes, processes)
    steps: Iterable[int] = range(len(losses), settings.steps)
    batches = (
        _batch(data, denoiser, settings, step, number, device)
        for step in steps
        for number in numbers
    )
    batch = next(batches, ())
    if main:
        steps = progress(steps, settings.steps, what, done=len(losses))
    for step in steps:
        sums = torch.zeros(2, device=device)
        for number in numbers:
            last = number == numbers[-1]
            with nullcontext() if last else accelerator.no_sync(ready):
                with accelerator.autocast():
                    error, count = ready(*batch)
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
        if not main:
            continue
        done = step + 1 == settings.steps
        if done or (step + 1) % _LOG_EVERY == 0:
            log({"train/loss": float(np.mean(losses[-_LOG_EVERY:]))}, step + 1)
        if (step + 1) % max(settings.steps // _PREVIEWS, 1) == 0:
            _swap(trainable, average)
            preview(step + 1)
            _swap(trainable, average)
            ready.train()
        if done or (step + 1) % settings.checkpoint_every == 0:
            _store(checkpoint, trainable, average, optimizer, schedule, losses)

    accelerator.wait_for_everyone()
    _swap(trainable, average)
    objective.to("cpu")
    denoiser.network.recompute(False)
    denoiser.eval()
    return float(np.mean(losses[-max(settings.steps // 10, 1) :]))


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


def _batch(
    data: Residuals,
    denoiser: Denoiser,
    settings: LoopSettings,
    step: int,
    number: int,
    device: torch.device,
) -> Batch:
    generator, source = _generators(settings, step, number, device)
    chosen = torch.randint(len(data), (settings.batch,), generator=generator)
    residual, condition = data.rows(chosen)
    noise = torch.randn(residual.shape, generator=source, device=device)
    t = denoiser.path.draw(settings.batch, generator)
    slices = None
    if denoiser.dim == "2d" and settings.slices:
        size = (settings.batch, settings.slices)
        slices = torch.randint(residual.shape[denoiser.axis], size, generator=generator)
    withheld = None
    if settings.drop_condition:
        withheld = torch.rand(settings.batch, generator=generator) < settings.drop_condition
    batch = (residual, t, noise, condition, slices, withheld)
    return tuple(None if b is None else b.to(device, non_blocking=True) for b in batch)


def _generators(
    settings: LoopSettings, step: int, number: int, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """Returns the random generators of a batch's choices and of its noise.

    The noise is drawn on the device: on one core of a CPU it takes as long as a GPU's step.
    """
    seed = int(np.random.SeedSequence([settings.seed, step, number]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(seed)
    if device.type == "cuda":
        return generator, torch.Generator(device).manual_seed(seed)
    return generator, generator


def _store(
    path: Path,
    trainable: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    losses: list[float],
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
    }
    torch.save(content, partial)
    partial.replace(path)


def _restore(
    path: Path,
    trainable: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
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
    losses: list[float] = content["losses"]
    return losses
