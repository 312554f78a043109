"""The training loop: the same for a base generator and for an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contracts.console import progress, say
from contracts.errors import UserError
from models.diffusion.denoiser import Denoiser
from models.diffusion.loss import errors
from training.dataset import Residuals
from training.settings import LoopSettings

Log = Callable[[dict[str, float], int], None]
Preview = Callable[[int], None]
Batch = tuple[Tensor | None, ...]
# (step, number of the batch within it, device), which alone it depends on.
Draw = Callable[[int, int, torch.device], Batch]

_LOG_EVERY = 20
_PREVIEWS = 2


class _Objective(nn.Module):
    """The errors as a module, so that data-parallel training synchronises its gradients."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *batch: Any) -> tuple[Tensor, Tensor]:
        """Sum of the errors of a batch, and the number of values summed."""
        total, count = errors(self.denoiser, *batch)
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
) -> float:
    """Train `trainable` parameters of `denoiser` in place, as `optimise` does."""
    denoiser.network.recompute(settings.recompute)
    loss = optimise(
        _Objective(denoiser),
        trainable,
        lambda *batch: _batch(data, denoiser, settings, *batch),
        settings,
        work,
        log,
        preview,
        what,
    )
    denoiser.network.recompute(False)
    denoiser.eval()
    return loss


def optimise(
    objective: nn.Module,
    trainable: Sequence[nn.Parameter],
    draw: Draw,
    settings: LoopSettings,
    work: Path,
    log: Log,
    preview: Preview,
    what: str,
) -> float:
    """Train `trainable` parameters of `objective` in place; their moving average remains.

    A run that was stopped goes on from the checkpoint in `work`. The p-th of P processes takes the
    batches p, P + p, 2 P + p ... of a step; a batch's subjects, times and noise are drawn from
    (seed, step, its number) alone. So the run then ends where an uninterrupted one would, and
    where one with other processes would that accumulates as many batches in all (but for
    rounding). With several processes, this is called in each; only the first one writes, logs
    and shows how far it is.

    Parameters
    ----------
    objective : gives the sum of a batch's errors, and the number of values summed. It ends on
        the CPU.
    draw : makes the batches.
    work : folder for `checkpoint.pt`, which is removed by the caller when its work is saved.
    log : called with metrics and the step.
    preview : called with the step `_PREVIEWS` times on the way, the averaged weights in place.
    what : label of the progress bar.

    Returns
    -------
    Mean training loss of the last tenth of the steps.

    Raises
    ------
    UserError : if the loss is not a finite number.
    """
    accelerator = _accelerator()
    device, main = accelerator.device, accelerator.is_main_process
    for parameter in objective.parameters():
        parameter.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        trainable,
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
    )
    ready = objective
    if settings.compile and device.type == "cuda":
        ready = torch.compile(objective, dynamic=False)  # type: ignore[assignment]
    ready, prepared = accelerator.prepare(ready, optimizer)
    average = [p.detach().clone() for p in trainable]
    losses: list[float] = []
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        losses = _restore(checkpoint, trainable, average, optimizer)
        if main:
            say(f"{what}: goes on from step {len(losses)}")

    ready.train()
    first, processes = accelerator.process_index, accelerator.num_processes
    numbers = range(first, settings.accumulate * processes, processes)
    steps: Iterable[int] = range(len(losses), settings.steps)
    batches = (draw(step, number, device) for step in steps for number in numbers)
    batch = next(batches, ())
    if main:
        steps = progress(steps, settings.steps, what, done=len(losses))
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        sums = torch.zeros(2, device=device)
        for number in numbers:
            last = number == numbers[-1]
            with nullcontext() if last else accelerator.no_sync(ready):
                with accelerator.autocast():
                    error, count = ready(*batch)
                accelerator.backward(error)
            sums += torch.stack([error.detach(), count])
            batch = next(batches, ())  # while a GPU is still at work
        # Over all values of the step. Processes have averaged their gradients, not summed them.
        total, count = accelerator.reduce(sums, "sum")
        torch._foreach_mul_([p.grad for p in trainable if p.grad is not None], processes / count)
        accelerator.clip_grad_norm_(trainable, settings.clip)
        prepared.step()
        prepared.zero_grad()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in trainable], 1 - decay)
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
            _store(checkpoint, trainable, average, optimizer, losses)

    accelerator.wait_for_everyone()
    _swap(trainable, average)
    objective.to("cpu")
    return float(np.mean(losses[-max(settings.steps // 10, 1) :]))


def is_first() -> bool:
    """Whether this is the only process, or the first of several that train together."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def _accelerator() -> Any:
    """This process's part in the training: device, precision, the processes beside it."""
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


def _schedule(step: int, settings: LoopSettings) -> float:
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
    generator, source = streams(settings, step, number, device)
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


def streams(
    settings: LoopSettings, step: int, number: int, device: torch.device
) -> tuple[torch.Generator, torch.Generator]:
    """What a batch is drawn from: its choices, and its noise on the device, since drawing a large
    batch's on one core takes as long as a GPU's step."""
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
    losses: list[float],
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    content = {
        "weights": [p.detach().cpu() for p in trainable],
        "average": [a.cpu() for a in average],
        "optimizer": optimizer.state_dict(),
        "losses": losses,
    }
    torch.save(content, partial)
    partial.replace(path)


def _restore(
    path: Path,
    trainable: Sequence[nn.Parameter],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
) -> list[float]:
    # weights_only: tensors and plain values, no code.
    content = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(trainable, content["weights"], strict=True):
            parameter.copy_(value)
        for mean, value in zip(average, content["average"], strict=True):
            mean.copy_(value)
    optimizer.load_state_dict(content["optimizer"])
    losses: list[float] = content["losses"]
    return losses
