"""The loss on held-out subjects: which weights remain, and when training stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.diffusion.loss import TrainingLoss
from training import batch
from training.dataset import TrainingImages
from training.settings import LoopSettings

# A number in the seeds of validation that those of training do not have.
_VALIDATION = 2**31


class Losses(NamedTuple):
    """What a training came to.

    Parameters
    ----------
    training : mean of the last tenth of the steps.
    held_out : loss on held-out subjects by step, that of step 0 before any training; empty where
        there are none.
    kept_step : the step whose weights remained.
    """

    training: float
    held_out: dict[int, float]
    kept_step: int

    @property
    def best_held_out(self) -> float | None:
        """The loss on held-out subjects of the weights that remained, or None."""
        return self.held_out.get(self.kept_step)


class Validation:
    """Measures the loss on held-out subjects now and then, and keeps the best weights.

    Every check has the same subjects, times and noise, so that the difference of two checks is
    that of the weights.

    Parameters
    ----------
    held_out : the subjects; None: nothing is measured, and the last weights remain.
    """

    def __init__(self, held_out: TrainingImages | None, settings: LoopSettings) -> None:
        self.held_out = held_out
        self.settings = settings
        self.losses: dict[int, float] = {}
        self.best: list[Tensor] = []

    def due(self, step: int) -> bool:
        """Returns whether the loss is measured after a step: before the first, after the last,
        and every `LoopSettings.validate_every` steps."""
        every, last = self.settings.validate_every, self.settings.steps
        return self.held_out is not None and (step % every == 0 or step == last)

    @property
    def best_step(self) -> int | None:
        """The step with the lowest loss, after at least one step; None if there was no check."""
        trained = {step: loss for step, loss in self.losses.items() if step}
        return min(trained, key=trained.__getitem__) if trained else None

    @property
    def over(self) -> bool:
        """Whether the last `LoopSettings.patience` checks were no better than one before them."""
        steps = sorted(self.losses)
        if not self.settings.patience or self.best_step is None:
            return False
        return len(steps) - 1 - steps.index(self.best_step) >= self.settings.patience

    def check(
        self,
        step: int,
        training_loss: TrainingLoss,
        trainable: Sequence[nn.Parameter],
        device: torch.device,
    ) -> None:
        """Measures the loss if it is due, and keeps the weights if they are the best so far."""
        if self.held_out is None or not self.due(step):
            return
        training_loss.eval()
        self.losses[step] = self._loss(self.held_out, training_loss, device)
        if self.best_step == step:
            self.best = [p.detach().clone() for p in trainable]

    def _loss(
        self, held_out: TrainingImages, training_loss: TrainingLoss, device: torch.device
    ) -> float:
        training_loss.to(device)
        total = torch.zeros(2)
        size = self.settings.batch
        with torch.inference_mode():
            for first in range(0, len(held_out), size):
                # Each subject has times and noise of its own, whatever it is measured beside.
                drawn = [
                    batch.draw(
                        held_out,
                        torch.tensor([i]),
                        training_loss.denoiser,
                        self.settings,
                        (self.settings.seed, _VALIDATION, i),
                        device,
                    )
                    for i in range(first, min(first + size, len(held_out)))
                ]
                total += torch.stack(training_loss(*batch.together(drawn))).cpu()
        return float(total[0] / total[1])

    def restore(self, trainable: Sequence[nn.Parameter]) -> None:
        """Gives parameters the best weights, where there are any."""
        if not self.best:
            return
        with torch.no_grad():
            for parameter, value in zip(trainable, self.best, strict=True):
                parameter.copy_(value)

    def report(self, training: float, steps: int) -> Losses:
        """Returns all losses."""
        return Losses(training, dict(self.losses), self.best_step or steps)

    def told(self) -> str:
        """Returns in words what the held-out subjects say; empty where there are none."""
        if self.best_step is None:
            return ""
        before, best = self.losses[0], self.losses[self.best_step]
        text = f"held-out loss {before:.4f} before, {best:.4f} after step {self.best_step}"
        if self.over:
            text += f", no better in {self.settings.patience} checks since: stopped"
        if best > before:
            text += "; training made it worse: expected more subjects or a lower learning rate"
        return text

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint holds of it."""
        return {"losses": dict(self.losses), "best": [value.cpu() for value in self.best]}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Goes on from what `state` returned."""
        self.losses = dict(state["losses"])
        self.best = [value.to(device) for value in state["best"]]
