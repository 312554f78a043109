"""The training loop: the same for a base generator and for an adapter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contracts.console import progress, say
from contracts.errors import UserError
from models.denoiser import Denoiser
from models.loss import loss
from training.dataset import Residuals
from training.settings import LoopSettings

Log = Callable[[dict[str, float], int], None]
Preview = Callable[[int], None]

_LOG_EVERY = 20
_PREVIEWS = 2


class _Objective(nn.Module):
    """The loss as a module, so that data-parallel training synchronises its gradients."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, *batch: Any) -> Tensor:
        return loss(self.denoiser, *batch)


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
    """Train `trainable` parameters of `denoiser` in place; their moving average remains.

    A run that was stopped goes on from the checkpoint in `work`. Each step draws its subjects,
    times and noise from (seed, step, process) alone, so that it then ends where an
    uninterrupted run would.

    Parameters
    ----------
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
    from accelerate import Accelerator

    accelerator = Accelerator(mixed_precision=_precision())
    for parameter in denoiser.parameters():
        parameter.requires_grad_(False)
    for parameter in trainable:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        trainable,
        lr=settings.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=settings.weight_decay,
    )
    objective, prepared = accelerator.prepare(_Objective(denoiser), optimizer)
    average = [p.detach().clone() for p in trainable]
    losses: list[float] = []
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        losses = _restore(checkpoint, trainable, average, optimizer)
        say(f"{what}: goes on from step {len(losses)}")

    device = accelerator.device
    objective.train()
    steps = range(len(losses), settings.steps)
    for step in progress(steps, settings.steps, what, done=len(losses)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        batch = _batch(data, denoiser, settings, step, accelerator.process_index)
        with accelerator.autocast():
            loss = objective(*(None if b is None else b.to(device) for b in batch))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(trainable, settings.clip)
        prepared.step()
        prepared.zero_grad()
        decay = min(settings.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in trainable], 1 - decay)
        losses.append(float(accelerator.gather(loss.detach()).mean()))
        if not math.isfinite(losses[-1]):
            raise UserError(
                f"{what}: the loss is {losses[-1]} at step {step}: lower learning_rate and "
                "run again"
            )
        done = step + 1 == settings.steps
        if done or (step + 1) % _LOG_EVERY == 0:
            log({"train/loss": float(np.mean(losses[-_LOG_EVERY:]))}, step + 1)
        if accelerator.is_main_process and (step + 1) % max(settings.steps // _PREVIEWS, 1) == 0:
            _swap(trainable, average)
            preview(step + 1)
            _swap(trainable, average)
            objective.train()
        if accelerator.is_main_process and (done or (step + 1) % settings.checkpoint_every == 0):
            _store(checkpoint, trainable, average, optimizer, losses)

    _swap(trainable, average)
    denoiser.to("cpu").eval()
    return float(np.mean(losses[-max(settings.steps // 10, 1) :]))


def _swap(trainable: Sequence[nn.Parameter], average: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(trainable, average, strict=True):
            held = parameter.clone()
            parameter.copy_(value)
            value.copy_(held)


def _precision() -> str:
    # On CPUs fp32: bf16 is emulated on many of them, slowly and, for this network, down to NaN.
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def _schedule(step: int, settings: LoopSettings) -> float:
    rise = min(1.0, (step + 1) / max(settings.warmup, 1))
    late = max(0.0, 2 * step / settings.steps - 1)
    return rise * 0.5 * (1 + math.cos(math.pi * late))


def _batch(
    data: Residuals,
    denoiser: Denoiser,
    settings: LoopSettings,
    step: int,
    process: int,
) -> tuple[Tensor | None, ...]:
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence([settings.seed, step, process]).generate_state(1)[0])
    )
    chosen = torch.randint(len(data.residual), (settings.batch,), generator=generator)
    residual = data.residual[chosen]
    noise = torch.randn(residual.shape, generator=generator)
    t = denoiser.path.draw(settings.batch, generator)
    slices = None
    if denoiser.dim == "2d" and settings.slices:
        size = (settings.batch, settings.slices)
        slices = torch.randint(residual.shape[denoiser.axis], size, generator=generator)
    return residual, t, noise, data.condition[chosen], data.mean[chosen], slices


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
    content = torch.load(path, weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(trainable, content["weights"], strict=True):
            parameter.copy_(value)
        for mean, value in zip(average, content["average"], strict=True):
            mean.copy_(value)
    optimizer.load_state_dict(content["optimizer"])
    losses: list[float] = content["losses"]
    return losses
