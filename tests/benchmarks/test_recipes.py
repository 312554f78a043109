"""The peers' recipes on small volumes and small networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.recipes import images as convert
from benchmarks.recipes.budget import Budget
from benchmarks.recipes.diffusion import DDPM_2D, DDPM_3D, PixelDiffusion
from benchmarks.recipes.latent import LDM_3D, BySex, LatentDiffusion
from contracts.condition import Condition
from contracts.maps import FA, MD

MAPS = (FA, MD)
# Sides that none of the networks takes as they are.
SHAPE = (24, 26, 22)
Peer = PixelDiffusion | LatentDiffusion | BySex


def _people(n: int) -> tuple[np.ndarray, list[Condition]]:
    rng = np.random.default_rng(0)
    volumes = np.zeros((n, 2, *SHAPE), dtype=np.float32)
    inner = (slice(4, -4),) * 3
    volumes[:, 0][(slice(None), *inner)] = 0.4
    volumes[:, 1][(slice(None), *inner)] = 0.8e-3
    volumes *= rng.uniform(0.8, 1.2, (n, 2, 1, 1, 1)).astype(np.float32)
    return volumes, [Condition(20.0 + 5 * i, "F" if i % 2 else "M") for i in range(n)]


def _peer(name: str, seed: int) -> Peer:
    small = replace(LDM_3D.narrowed(4), warm_up=0)
    made: dict[str, Callable[[], Peer]] = {
        "2d": lambda: PixelDiffusion(replace(DDPM_2D.narrowed(8), batch=4), SHAPE, MAPS, seed),
        "3d": lambda: PixelDiffusion(replace(DDPM_3D.narrowed(16), batch=1), SHAPE, MAPS, seed),
        "latent": lambda: LatentDiffusion(small, SHAPE, MAPS, seed),
        "by sex": lambda: BySex(small, SHAPE, MAPS, seed),
    }
    return made[name]()


@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_crop_is_the_inverse_of_pad(multiple: int) -> None:
    images = torch.randn(2, 3, *SHAPE)
    padded = convert.pad(images, multiple)
    assert all(s % multiple == 0 for s in padded.shape[2:])
    assert torch.equal(convert.crop(padded, SHAPE), images)
    assert torch.count_nonzero(padded) == torch.count_nonzero(images)


def test_units_are_restored_and_the_impossible_is_cut() -> None:
    volumes, _ = _people(3)
    images = convert.to_images(volumes, MAPS)
    assert images.max() <= 1
    np.testing.assert_allclose(convert.to_volumes(images, MAPS), volumes, rtol=1e-6)
    images[0, 0, 0], images[1, 1, 0], images[2, 0, 0] = -5, 5, torch.nan
    cut = convert.to_volumes(images, MAPS)
    assert cut.min() == 0
    assert cut[:, 1].max() == np.float32(MD.maximum)
    assert np.isfinite(cut).all()


@pytest.mark.parametrize("name", ["2d", "3d", "latent", "by sex"])
def test_equal_seeds_give_equal_weights_and_possible_volumes(name: str) -> None:
    volumes, people = _people(6)
    first, again, other = (_peer(name, seed) for seed in (0, 0, 1))
    for peer in (first, again, other):
        torch.manual_seed(0)
        assert peer.train(volumes, people, Budget(steps=2)) >= 2
    digests = [convert.digest(*p.networks) for p in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    made = first.sample(people[:2], (5, 6), 2)
    assert made.shape == (2, 2, *SHAPE)
    assert np.isfinite(made).all()
    assert made.min() >= 0
    assert (made.max(axis=(0, 2, 3, 4)) <= [FA.maximum, np.float32(MD.maximum)]).all()
    assert np.array_equal(made, again.sample(people[:2], (5, 6), 2))


def test_ten_evaluations_are_ddim_and_a_thousand_the_tutorials_chain() -> None:
    from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

    assert isinstance(DDPM_3D.scheduler(10), DDIMScheduler)
    full = DDPM_3D.scheduler(1000)
    assert isinstance(full, DDPMScheduler)
    assert len(full.timesteps) == 1000


def test_networks_are_the_tutorials() -> None:
    count = {
        name: sum(p.numel() for p in network.parameters())
        for name, network in {
            "unet of the latents": LDM_3D.diffusion.network(3),
            "narrowed": DDPM_3D.narrowed(8).network(2),
        }.items()
    }
    # What the source repository's notebook prints, see DiffusionModelUNet (32, 64, 64).
    assert count["unet of the latents"] == 2_974_051
    assert DDPM_3D.narrowed(8).channels == (32, 32, 64)
    assert DDPM_3D.narrowed(1) == DDPM_3D
    assert LDM_3D.narrowed(1) == LDM_3D


def test_a_budget_of_seconds_is_kept() -> None:
    import time

    begun = time.process_time()
    for _ in Budget(seconds=0.2):
        until = time.process_time() + 0.03
        while time.process_time() < until:
            pass
    assert time.process_time() - begun <= 0.2
    assert list(Budget(steps=3)) == [0, 1, 2]
    assert list(Budget(seconds=0)) == [0]
    with pytest.raises(ValueError, match="expected seconds or steps"):
        Budget()
