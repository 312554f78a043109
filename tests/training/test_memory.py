"""What shapes tell of memory, and what an error for lack of it says."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contracts.errors import UserError
from contracts.space import Space, mni_space
from models.config import Dim, NetworkConfig
from training.loop import fit
from training.memory import Need, choose, need
from training.plan import parsed
from training.settings import LoopSettings
from training.stand_in import Training, training

SPACE = Space("small", (16, 16, 16), mni_space(4.0).affine)
NETWORK = NetworkConfig(channels=(16, 32), attention=True)
LOOP = LoopSettings(steps=1, batch=2, slices=2)


def told(ready: Training, settings: LoopSettings) -> Need:
    return need(ready.loss, ready.trainable, settings, bf16=False)


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_what_is_told_follows_what_is_trained(dim: Dim) -> None:
    full, lora = training(dim, SPACE, NETWORK, "full"), training(dim, SPACE, NETWORK, "lora")
    lean = replace(LOOP, recompute=True)
    assert told(lora, lean).growth < told(lora, LOOP).growth < told(full, LOOP).growth


def test_each_volume_takes_as_much_as_the_one_before() -> None:
    ready = training("3d", SPACE, NETWORK, "lora")
    one, two, four = (told(ready, replace(LOOP, batch=n)).step for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.05)


def test_fewer_and_smaller_cubes_take_less() -> None:
    ready = training("3d", SPACE, NETWORK)
    two = replace(LOOP, cubes=2, cube_edge=8)
    small, fewer = replace(two, cube_edge=4), replace(two, cubes=1)
    whole = told(ready, LOOP).step
    assert max(told(ready, small).step, told(ready, fewer).step) < told(ready, two).step < whole
    # Beyond the grid there is nothing to cut.
    most = [told(ready, replace(LOOP, cubes=1, cube_edge=edge)) for edge in (16, 99)]
    assert most[0] == most[1]


def test_each_cube_takes_as_much_as_the_one_before() -> None:
    ready = training("3d", SPACE, NETWORK)
    one, two, four = (told(ready, replace(LOOP, cubes=n, cube_edge=8)).step for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.05)


def test_telling_leaves_the_network_as_it_was() -> None:
    ready = training("3d", SPACE, NETWORK, "lora")
    before = {k: v.clone() for k, v in ready.loss.state_dict().items()}
    flags = [p.requires_grad for p in ready.loss.parameters()]
    told(ready, LOOP)
    gc.collect()
    after = ready.loss.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert [p.requires_grad for p in ready.loss.parameters()] == flags
    assert all(p.grad is None for p in ready.loss.parameters())


def test_the_choice_fits_and_one_volume_more_does_not() -> None:
    ready = training("3d", SPACE, NETWORK, "lora")
    available = 2 * told(ready, LOOP).total
    choice = choose(lambda s: told(ready, s), replace(LOOP, batch=500), available)
    assert choice is not None
    assert choice.recompute
    more = told(ready, replace(LOOP, batch=choice.batch + 2, recompute=True))
    assert choice.need.total <= 0.91 * available < more.total
    assert choose(lambda s: told(ready, s), LOOP, 1000) is None


def test_lack_of_memory_names_what_would_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = training("3d", SPACE, NETWORK)
    usual = torch.autograd.backward
    calls: list[int] = []

    def lacking(*args: object, **kwargs: object) -> None:
        calls.append(0)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("none left")
        usual(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.autograd, "backward", lacking)
    with pytest.raises(UserError, match=r"batch: \d+ with recompute: (true|false) takes"):
        fit(
            ready.loss.denoiser, ready.trainable, ready.data, replace(LOOP, batch=40), tmp_path,
            lambda metrics, step: None, lambda step: None, "test",
        )  # fmt: skip


def test_sizes_are_read() -> None:
    assert parsed("16GB") == 16 * 10**9
    assert parsed("1.5 GiB") == 3 * 2**29
    with pytest.raises(UserError, match="expected a number"):
        parsed("16")
