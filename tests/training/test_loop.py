"""The training loop: it learns, resumes exactly, and leaves alone what it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from contracts.errors import UserError
from models.adapters.adapter import Adapter
from models.adapters.method import method
from models.config import DiffusionConfig, Dim
from models.diffusion.loss import errors
from models.generator import Generator
from tests.cohort.tiny import tiny_volumes
from tests.models.tiny import DDPM, NETWORK, PATH, tiny_generator
from training.batch import training_batch
from training.dataset import TrainingImages
from training.loop import fit
from training.settings import LoopSettings
from training.validation import Losses

SETTINGS = LoopSettings(steps=12, batch=2, slices=2, warmup=2, checkpoint_every=5, seed=3)


def data_of(generator: Generator, work: Path, seed: int = 0) -> TrainingImages:
    volumes, masks, people = tiny_volumes(24, seed=seed)
    encoded, prior = generator.encode(volumes, masks), generator.prior
    displacements = np.stack([prior.register(*one) for one in zip(encoded, people, strict=True)])
    return TrainingImages.of(prior, encoded, displacements, people, work)


def train(
    generator: Generator,
    settings: LoopSettings,
    work: Path,
    held_out: TrainingImages | None = None,
    preview: Callable[[int], None] = lambda step: None,
) -> Losses:
    """Train the whole network of a tiny generator."""
    return fit(
        generator.denoiser,
        list(generator.denoiser.network.parameters()),
        data_of(generator, work),
        settings,
        work,
        lambda metrics, step: None,
        preview,
        "test",
        held_out=held_out,
    )


def run(
    generator: Generator, settings: LoopSettings, work: Path, stop_at: int | None = None
) -> list[int]:
    """Train; with `stop_at`, die in the middle of that step's log."""
    seen: list[int] = []

    def preview(step: int) -> None:
        seen.append(step)
        if stop_at is not None and step >= stop_at:
            raise KeyboardInterrupt

    train(generator, settings, work, preview=preview)
    return seen


@pytest.mark.parametrize(
    ("dim", "accumulate", "drop", "cubes"),
    [
        ("2d", 1, 0.0, 0),
        ("3d", 1, 0.0, 0),
        ("3d", 1, 0.0, 2),
        ("2d", 3, 0.0, 0),
        ("2d", 1, 0.5, 0),
        ("3d", 1, 0.5, 2),
    ],
)
def test_resumed_equals_uninterrupted(
    dim: Dim, accumulate: int, drop: float, cubes: int, tmp_path: Path
) -> None:
    settings = replace(
        SETTINGS, accumulate=accumulate, drop_condition=drop, cubes=cubes, cube_edge=4
    )
    whole, broken = (tiny_generator(dim, trained=False, drop_condition=drop) for _ in range(2))
    run(whole, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(broken, settings, tmp_path / "broken", stop_at=6)
    again = tiny_generator(
        dim, trained=False, seed=99, drop_condition=drop
    )  # only the checkpoint knows the weights
    run(again, settings, tmp_path / "broken")
    assert again.digest == whole.digest


@pytest.mark.parametrize(("dim", "cubes"), [("2d", 0), ("3d", 0), ("3d", 2)])
def test_accumulated_gradients_are_those_of_all_batches_at_once(
    dim: Dim, cubes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exact(*given: Any) -> tuple[torch.Tensor | None, ...]:
        parts = training_batch(*given)
        return tuple(p.double() if p is not None and p.is_floating_point() else p for p in parts)

    # In fp32, sums in another order leave small elements no digits to compare.
    monkeypatch.setattr("training.loop.training_batch", exact)
    generator = tiny_generator(dim)
    generator.denoiser.double()
    data = data_of(generator, tmp_path)
    parameters = list(generator.denoiser.network.parameters())
    settings = replace(SETTINGS, steps=1, accumulate=3, clip=1e9, cubes=cubes, cube_edge=4)
    cpu = torch.device("cpu")
    batches = [exact(data, generator.denoiser, settings, 0, k, cpu) for k in range(3)]
    large = [torch.cat(part) for part in zip(*batches, strict=True) if part[0] is not None]
    total, count = errors(generator.denoiser, *large)
    expected = torch.autograd.grad(total.sum() / count.sum(), parameters)
    found: list[torch.Tensor] = []

    def look(*_: object) -> None:
        found.extend(p.grad.clone() for p in parameters if p.grad is not None)

    hook = register_optimizer_step_pre_hook(look)
    run(generator, settings, tmp_path)
    hook.remove()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-12)


def test_recomputed_activations_train_the_same(tmp_path: Path) -> None:
    a, b = (tiny_generator("3d", trained=False) for _ in range(2))
    run(a, SETTINGS, tmp_path / "a")
    run(b, replace(SETTINGS, recompute=True), tmp_path / "b")
    for one, other in zip(
        a.denoiser.network.parameters(), b.denoiser.network.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_another_seed_trains_another_network(tmp_path: Path) -> None:
    a, b = (tiny_generator("3d", trained=False) for _ in range(2))
    run(a, SETTINGS, tmp_path / "a")
    run(b, replace(SETTINGS, seed=4), tmp_path / "b")
    assert a.digest != b.digest


@pytest.mark.parametrize(
    ("path", "cubes"), [(PATH, 0), (PATH, 4), (DDPM, 0)], ids=["flow", "cubes", "ddpm"]
)
def test_training_lowers_the_loss(path: DiffusionConfig, cubes: int, tmp_path: Path) -> None:
    generator = tiny_generator("3d", seed=5, path=path)  # random weights: far above 1
    logged: list[float] = []
    fit(
        generator.denoiser,
        list(generator.denoiser.network.parameters()),
        data_of(generator, tmp_path),
        replace(SETTINGS, steps=60, cubes=cubes, cube_edge=4),
        tmp_path,
        lambda metrics, step: logged.append(metrics["train/loss"]),
        lambda step: None,
        "test",
    )
    assert logged[-1] < 0.9 * logged[0]


def test_an_adapter_trains_itself_alone(tmp_path: Path) -> None:
    generator = tiny_generator("3d")
    before = {k: v.clone() for k, v in generator.denoiser.network.state_dict().items()}
    adapter = Adapter(generator.denoiser.network, method("lora", {"rank": 2}))
    fit(
        generator.denoiser,
        adapter.parameters(),
        data_of(generator, tmp_path),
        SETTINGS,
        tmp_path,
        lambda metrics, step: None,
        lambda step: None,
        "test",
    )
    assert any(bool(p.any()) for n, p in adapter.named_parameters().items() if n.endswith("up"))
    adapter.detach()
    for name, value in generator.denoiser.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_slices_are_drawn_from_the_whole_axis_of_the_plane(tmp_path: Path) -> None:
    generator = tiny_generator("2d", network=replace(NETWORK, plane="coronal"))
    data, settings = data_of(generator, tmp_path), replace(SETTINGS, slices=64)
    slices = training_batch(data, generator.denoiser, settings, 0, 0, torch.device("cpu"))[5]
    assert slices is not None
    assert {int(k) for k in slices.flatten()} == set(range(generator.space.shape[1]))


def test_conditions_are_withheld_as_often_as_asked(tmp_path: Path) -> None:
    generator = tiny_generator("3d", drop_condition=0.2)
    data, cpu = data_of(generator, tmp_path), torch.device("cpu")
    settings = replace(SETTINGS, batch=8, drop_condition=0.2)
    told = [
        training_batch(data, generator.denoiser, settings, step, 0, cpu)[-1] for step in range(250)
    ]
    assert float(torch.stack([w.float() for w in told if w is not None]).mean()) == pytest.approx(
        0.2, abs=0.03
    )
    never = replace(settings, drop_condition=0.0)
    plain, dropping = (
        training_batch(data, generator.denoiser, s, 0, 0, cpu) for s in (never, settings)
    )
    assert plain[-1] is None
    for one, other in zip(plain[:5], dropping[:5], strict=True):
        assert one is not None
        assert torch.equal(one, other)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_is_told(tmp_path: Path) -> None:
    generator = tiny_generator("3d")
    data = data_of(generator, tmp_path)
    data = replace(data, images=np.full_like(data.images, np.nan))
    with pytest.raises(UserError, match="lower learning_rate"):
        fit(
            generator.denoiser,
            list(generator.denoiser.network.parameters()),
            data,
            SETTINGS,
            tmp_path,
            lambda metrics, step: None,
            lambda step: None,
            "test",
        )
