"""Held-out subjects decide which weights remain and when training stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.diffusion.loss import TrainingLoss
from tests.models.tiny import tiny_generator
from tests.training.test_loop import data_of, train
from training.dataset import TrainingImages
from training.settings import LoopSettings
from training.validation import Validation

SETTINGS = LoopSettings(steps=12, warmup=2, slices=2, checkpoint_every=5, validate_every=3, seed=3)
CPU = torch.device("cpu")


@pytest.fixture
def held_out(tmp_path: Path) -> TrainingImages:
    return data_of(tiny_generator("3d"), tmp_path / "held-out", seed=7)


@pytest.mark.parametrize("patience", [0, 2])
def test_the_weights_that_remain_are_those_of_the_lowest_loss(
    patience: int, held_out: TrainingImages, tmp_path: Path
) -> None:
    generator = tiny_generator("3d", seed=5)
    # Far too high a rate: the loss wanders.
    settings = replace(SETTINGS, steps=24, learning_rate=0.3, patience=patience)
    losses = train(generator, settings, tmp_path, held_out)
    trained = {step: loss for step, loss in losses.held_out.items() if step}
    assert losses.kept_step == min(trained, key=trained.__getitem__)
    assert max(losses.held_out) - losses.kept_step == 3 * patience or max(losses.held_out) == 24
    again = Validation(held_out, settings)
    again.check(3, TrainingLoss(generator.denoiser), [], CPU)
    assert again.losses[3] == pytest.approx(min(trained.values()), rel=1e-6)


def test_training_stops_when_it_gets_no_better(held_out: TrainingImages, tmp_path: Path) -> None:
    generator = tiny_generator("3d", seed=5)
    # Without any rate nothing changes, so that the first check remains the best one.
    settings = replace(SETTINGS, steps=60, learning_rate=1e-30, patience=2)
    losses = train(generator, settings, tmp_path, held_out)
    assert sorted(losses.held_out) == [0, 3, 6, 9]
    assert losses.kept_step == 3


def test_without_held_out_subjects_the_last_weights_remain(tmp_path: Path) -> None:
    generator = tiny_generator("3d", seed=5)
    losses = train(generator, SETTINGS, tmp_path)
    assert losses.held_out == {}
    assert losses.kept_step == SETTINGS.steps
    assert losses.best_held_out is None


def test_held_out_subjects_do_not_change_what_is_learnt(
    held_out: TrainingImages, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, patience=0)
    plain, checked = (tiny_generator("3d", seed=5) for _ in range(2))
    train(plain, settings, tmp_path / "plain")
    losses = train(checked, settings, tmp_path / "checked", held_out)
    if losses.kept_step == settings.steps:
        assert plain.digest == checked.digest
    stored = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["weights"]
        for name in ("plain", "checked")
    ]
    for one, other in zip(*stored, strict=True):
        assert torch.equal(one, other)


def test_a_run_that_was_stopped_keeps_the_same_weights(
    held_out: TrainingImages, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, learning_rate=0.3, patience=0)
    whole, broken = (tiny_generator("3d", seed=5) for _ in range(2))
    expected = train(whole, settings, tmp_path / "whole", held_out)

    def stop(step: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(broken, settings, tmp_path / "broken", held_out, stop)
    again = tiny_generator("3d", seed=99)
    assert train(again, settings, tmp_path / "broken", held_out) == expected
    assert again.digest == whole.digest


@pytest.mark.parametrize("cubes", [0, 2])
def test_a_check_has_the_same_draws_every_time(cubes: int, held_out: TrainingImages) -> None:
    generator = tiny_generator("3d")
    validation = Validation(held_out, replace(SETTINGS, cubes=cubes, cube_edge=4))
    for step in (3, 6):
        validation.check(step, TrainingLoss(generator.denoiser), [], CPU)
    assert validation.losses[3] == validation.losses[6]


def test_a_training_that_makes_it_worse_is_told(held_out: TrainingImages, tmp_path: Path) -> None:
    validation = Validation(held_out, SETTINGS)
    validation.losses = {0: 1.0, 3: 1.2, 6: 1.1}
    assert "made it worse" in validation.told()
    validation.losses = {0: 1.0, 3: 0.9}
    assert "made it worse" not in validation.told()


@pytest.mark.parametrize(
    ("dim", "parts"),
    [("3d", {"cubes": 2, "cube_edge": 8}), ("3d", {}), ("2d", {"slices": 2})],
)
def test_the_loss_is_the_same_however_many_subjects_are_measured_at_a_time(
    dim: Any, parts: dict[str, Any], tmp_path: Path
) -> None:
    generator = tiny_generator(dim)
    held_out = data_of(generator, tmp_path, seed=7)
    loss = TrainingLoss(generator.denoiser)
    found = []
    for size in (1, 2, len(held_out)):
        validation = Validation(held_out, LoopSettings(steps=4, batch=size, **parts))
        validation.check(4, loss, [], CPU)
        found.append(validation.losses[4])
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)
