"""A batch: which part of each volume it takes, and that a seed and a step fix it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.space import Space, mni_space
from models.config import Dim, NetworkConfig
from tests.models.tiny import tiny_generator
from tests.training.test_loop import data_of
from training.batch import Batch, training_batch
from training.memory import _batch
from training.settings import LoopSettings
from training.stand_in import Training, denoiser, training, training_images

SPACE = Space("small", (16, 24, 16), mni_space(4.0).affine)
NETWORK = NetworkConfig(channels=(16, 16), attention=False)
LOOP = LoopSettings(steps=1, batch=3, cubes=8, cube_edge=8, seed=5)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ready() -> Training:
    """A 3D training whose mask is a small block in the middle of the grid."""
    made = training("3d", SPACE, NETWORK)
    made.loss.denoiser.mask.copy_(block((6, 9), (10, 14), (7, 10)))
    return made


def block(*bounds: tuple[int, int]) -> torch.Tensor:
    """A mask (X, Y, Z) that is one from the first to before the last number along each axis."""
    mask = torch.zeros(SPACE.shape)
    mask[tuple(slice(*bound) for bound in bounds)] = 1
    return mask


def batch(ready: Training, settings: LoopSettings = LOOP, step: int = 0, number: int = 0) -> Batch:
    return training_batch(ready.data, ready.loss.denoiser, settings, step, number, CPU)


def cubes(ready: Training, settings: LoopSettings = LOOP, step: int = 0) -> torch.Tensor:
    """The voxels of a batch's cubes, (B, K, 3, L)."""
    parts = batch(ready, settings, step)[5]
    assert parts is not None
    return parts


@pytest.mark.parametrize(("asked", "edge"), [(6, 6), (7, 7), (16, 16), (99, 16)])
def test_cubes_have_the_asked_edge_and_lie_inside_the_grid(
    ready: Training, asked: int, edge: int
) -> None:
    found = cubes(ready, replace(LOOP, cubes=40, cube_edge=asked))
    assert found.shape == (LOOP.batch, 40, 3, edge)
    assert (found.diff(dim=-1) == 1).all()
    assert (found[..., 0] >= 0).all()
    assert (found[..., -1] < torch.tensor(SPACE.shape)).all()


def test_cubes_are_centred_on_all_voxels_of_the_mask(ready: Training) -> None:
    found = cubes(ready, replace(LOOP, cubes=400))
    centres = found[..., LOOP.cube_edge // 2].flatten(0, 1)
    assert {tuple(c) for c in centres.tolist()} == {
        tuple(c) for c in ready.loss.denoiser.mask.nonzero().tolist()
    }


def test_where_there_is_no_room_cubes_end_at_the_grid() -> None:
    ready = training("3d", SPACE, NETWORK)
    for first, corner in ((0, (0, 0, 0)), (1, tuple(n - LOOP.cube_edge for n in SPACE.shape))):
        ends = [(n - 1, n) if first else (0, 1) for n in SPACE.shape]
        ready.loss.denoiser.mask.copy_(block(*ends))
        found = cubes(ready)[..., 0]
        assert (found == torch.tensor(corner)).all()


def test_every_volume_has_cubes_of_its_own(ready: Training) -> None:
    one, two, _ = cubes(ready)
    assert not torch.equal(one, two)


def test_seed_step_and_number_fix_a_batch(ready: Training) -> None:
    found, again = batch(ready, step=3, number=1), batch(ready, step=3, number=1)
    for one, other in zip(found, again, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]
    for another in (
        batch(ready, step=4, number=1),
        batch(ready, step=3, number=2),
        batch(ready, replace(LOOP, seed=6), step=3, number=1),
    ):
        for i in (2, 3, 5):  # times, noise and cubes
            assert not torch.equal(found[i], another[i])  # type: ignore[arg-type]


def test_what_is_cut_changes_neither_subjects_nor_times_nor_noise(ready: Training) -> None:
    whole, cut = batch(ready, replace(LOOP, cubes=0)), batch(ready)
    assert whole[5] is None
    for one, other in zip(whole[:5], cut[:5], strict=True):
        assert torch.equal(one, other)  # type: ignore[arg-type]


def test_a_cube_of_the_whole_grid_has_the_loss_of_the_whole_volume() -> None:
    grid = Space("cube", (16, 16, 16), mni_space(4.0).affine)
    ready = training("3d", grid, NETWORK)
    settings = replace(LOOP, cubes=1, cube_edge=16)
    with torch.inference_mode():
        whole = ready.loss(*batch(ready, replace(settings, cubes=0)))
        cut = ready.loss(*batch(ready, settings))
    torch.testing.assert_close(cut, whole)


@pytest.mark.parametrize(
    ("dim", "changes"),
    [
        ("2d", {"slices": 4}),
        ("2d", {}),
        ("3d", {"cubes": 2, "cube_edge": 4}),
        ("3d", {"cubes": 2, "cube_edge": 99}),
        ("3d", {"cubes": 0}),
    ],
)
def test_planned_and_made_up_batches_have_the_shapes_of_a_real_one(
    dim: Dim, changes: dict[str, int], tmp_path: Path
) -> None:
    settings = replace(LOOP, **changes)  # type: ignore[arg-type]
    generator = tiny_generator(dim)
    data = data_of(generator, tmp_path)
    real = training_batch(data, generator.denoiser, settings, 0, 0, CPU)
    made_up = training(dim, generator.space, generator.config.network)
    assert shapes(_batch(made_up.loss, settings)) == shapes(real)
    assert shapes(batch(made_up, settings)) == shapes(real)


def shapes(batch: Batch) -> list[tuple[torch.Size, torch.dtype] | None]:
    return [None if part is None else (part.shape, part.dtype) for part in batch]


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_a_made_up_denoiser_has_the_tensors_of_a_real_one(dim: Dim) -> None:
    generator = tiny_generator(dim)
    modes = len(generator.prior.map_covariance.variance)
    made_up = denoiser(dim, generator.space, generator.config.network, modes=modes)
    expected = {name: one.shape for name, one in generator.denoiser.state_dict().items()}
    assert {name: one.shape for name, one in made_up.state_dict().items()} == expected


def test_made_up_images_are_read_as_those_of_subjects() -> None:
    data = training_images(4, SPACE, entries=3)
    residual, expected, condition = data.rows(torch.tensor([3, 1]))
    assert residual.shape == (2, 2, *SPACE.shape)
    assert expected.shape == (2, 3, *SPACE.shape)
    assert condition.shape == (2, 3)
    np.testing.assert_array_equal(torch.cat([residual, expected], dim=1)[0], data.images[3])
