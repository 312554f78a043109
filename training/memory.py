"""What a training step needs of memory, told from shapes: nothing is computed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contracts.errors import UserError
from models.diffusion.loss import TrainingLoss
from training.settings import LoopSettings

# Two moments of AdamW and the moving average, in fp32.
_STATE_BYTES = 12
# Share of the memory that is planned for; allocators lose some to gaps.
_USED = 0.9
_MOST = 1024
# What convolutions take for themselves; measured on CPUs, beside trainings of 60 to 160 MiB.
_WORKSPACE = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a training takes.

    Parameters
    ----------
    loaded : the network, its adapter and the prior's basis, before the first step.
    state : moments of the optimizer and moving average.
    step : the most that batch, activations, gradients and changed weights take at one time.
    part : the part of the step in which that is: ``forward`` or ``backward``.
    """

    loaded: int
    state: int
    step: int
    part: str

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.loaded + self.state + self.step

    @property
    def growth(self) -> int:
        """Bytes that training adds to what is loaded."""
        return self.state + self.step


@dataclass(frozen=True, slots=True)
class Choice:
    """A batch, with or without `LoopSettings.recompute`, and what it needs."""

    batch: int
    recompute: bool
    need: Need


def need(
    loss: TrainingLoss, trainable: Sequence[nn.Parameter], settings: LoopSettings, bf16: bool
) -> Need:
    """Returns what training some parameters takes.

    One step is run on tensors without values (`FakeTensorMode`), and the bytes of all living
    tensors are added up. The gaps of an allocator are not seen.

    Parameters
    ----------
    bf16 : as on a GPU, with the autocast rules of CPUs.
    """
    denoiser = loss.denoiser
    known = {id(p) for p in trainable}
    tensors = [*loss.named_parameters(), *loss.named_buffers()]
    before = [(p, p.requires_grad) for p in loss.parameters()]
    denoiser.network.recompute(settings.recompute)
    mode, live = FakeTensorMode(), _Live()
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in known)
        fake: dict[str, Tensor] = {name: mode.from_tensor(tensor) for name, tensor in tensors}
        with mode, _reparametrize_module(loss, fake, tie_weights=True), live:
            batch = _batch(loss, settings)
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                error, _ = loss(*batch)
            del batch
            live.part = "backward"
            torch.autograd.backward(error)
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
        denoiser.network.recompute(False)
    return Need(
        loaded=sum(tensor.nbytes for _, tensor in tensors),
        state=_STATE_BYTES * sum(p.numel() for p in trainable),
        step=live.peak + _WORKSPACE,
        part=live.peak_part,
    )


def choose(
    need_of: Callable[[LoopSettings], Need], settings: LoopSettings, available: int
) -> Choice | None:
    """Returns the largest batch up to the one that is asked for, without `recompute` if that fits;
    None if no batch does.

    Parameters
    ----------
    need_of : `need` of a training with other settings.
    available : bytes.
    """
    best: Choice | None = None
    for recompute in (False, True):
        one, two = (need_of(replace(settings, batch=b, recompute=recompute)) for b in (1, 2))
        each = max(two.total - one.total, 1)
        room = int(_USED * available) - one.total
        if room < 0:
            continue
        batch = min(1 + room // each, settings.batch, _MOST)
        if best is None or batch > best.batch:
            chosen = replace(settings, batch=batch, recompute=recompute)
            best = Choice(batch, recompute, need_of(chosen))
    return best


@contextmanager
def explained(
    loss: TrainingLoss, trainable: Sequence[nn.Parameter], settings: LoopSettings, bf16: bool
) -> Iterator[None]:
    """Turns an error for lack of memory into one that says what the planner chooses instead.

    Raises
    ------
    UserError : if memory lacks; with a batch and `recompute` that need less than what lacked, by
        half if nothing else is known.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # torch.OutOfMemoryError is a RuntimeError; that of CPUs is no class of its own.
        lacks = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not lacks and "can't allocate memory" not in str(error):
            raise
        now = need(loss, trainable, settings, bf16)

        def need_of(other: LoopSettings) -> Need:
            return need(loss, trainable, other, bf16)

        choice = choose(need_of, settings, now.total // 2)
        advice = "take a smaller network or larger voxels"
        if choice is not None:
            advice = (
                f"batch: {choice.batch} with recompute: {str(choice.recompute).lower()} takes "
                f"{choice.need.total / 1e9:.2f} GB"
            )
        raise UserError(
            f"out of memory: this training takes about {now.total / 1e9:.2f} GB beside the "
            f"libraries; {advice}; `python -m training.plan` says what fits into a given memory"
        ) from error


def _batch(loss: TrainingLoss, settings: LoopSettings) -> tuple[Tensor | None, ...]:
    """Returns a batch of the shapes of `training.batch.draw`."""
    denoiser, count = loss.denoiser, settings.batch
    shape = (count, *denoiser.basis.power.shape)
    first: Any = denoiser.network.unet.class_embedding
    entries = first[0].in_features - denoiser.null_token - (denoiser.dim == "2d")
    parts = None
    if denoiser.dim == "2d" and settings.slices:
        parts = torch.zeros(count, settings.slices, dtype=torch.long)
    elif denoiser.dim == "3d" and settings.cubes:
        edge = min(settings.cube_edge, *shape[2:])
        parts = torch.zeros(count, settings.cubes, 3, edge, dtype=torch.long)
    return (
        torch.empty(shape),
        torch.empty(count, shape[1] + 1, *shape[2:]),
        torch.rand(count),
        torch.empty(shape),
        torch.zeros(count, entries),
        parts,
        None,
    )


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of the tensors that live; those that were there before are not seen."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.part = self.peak_part = "forward"
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if _is(t)}
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if not _is(tensor):
                continue
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in given or key in self._sizes:
                continue
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._gone, key)
        if self.now > self.peak:
            self.peak, self.peak_part = self.now, self.part
        return out

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


def _is(value: object) -> bool:
    return isinstance(value, Tensor)
