"""Volumes whose brain is a given mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cohort import channels
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import FA, MD, MapSpec
from models.config import DiffusionConfig, Dim
from models.coverage import Coverage
from models.generator import Generator
from models.generator_config import GeneratorConfig
from tests.cohort.tiny import SPACE, tiny_volumes
from tests.models.tiny import DDPM, NETWORK, randomised, template_prior, tiny_generator

PEOPLE = [Condition(30, "F"), Condition(70, "M"), Condition(50, "F")]


def brains(n: int, seed: int) -> np.ndarray:
    """Ellipsoids of several sizes, (n, 8, 16, 8)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in SPACE.shape], indexing="ij"), axis=-1)
    radii = np.array([3.2, 6.5, 3.2]) * rng.uniform(0.8, 1.1, (n, 3))
    away = (grid - np.array([3.5, 7.5, 3.5])) / radii[:, None, None, None]
    inside: np.ndarray = (away**2).sum(axis=-1) < 1
    return inside


def generator_of(dim: Dim, path: DiffusionConfig) -> Generator:
    volumes, _, people = tiny_volumes(40)
    masks = brains(40, 0)
    volumes = np.where(masks[:, None], np.maximum(volumes, 1e-4), 0).astype(np.float32)
    encoded = channels.encode(volumes, masks, (FA, MD))
    config = GeneratorConfig(dim, SPACE, ("fa", "md"), NETWORK, path, Coverage.of(people))
    prior = template_prior(encoded, channels.possible_brain(masks), people)
    torch.manual_seed(0)
    return randomised(Generator(config, prior))


@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize("path", [DiffusionConfig(), DDPM], ids=["flow", "ddpm"])
def test_the_brain_is_the_one_given(
    dim: Dim, path: DiffusionConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, masks = generator_of(dim, path), brains(3, 1)
    found: list[np.ndarray] = []
    decode = channels.decode

    def look(encoded: np.ndarray, maps: tuple[MapSpec, ...]) -> np.ndarray:
        found.extend(channels.brain(encoded))
        return decode(encoded, maps)

    monkeypatch.setattr(channels, "decode", look)
    volumes = generator.sample(PEOPLE, [1, 2, 3], 3, masks=masks)
    np.testing.assert_array_equal(found[:3], masks)
    maps = volumes.transpose(0, 2, 3, 4, 1)
    assert (maps[~masks] == 0).all()
    assert (maps[masks] > 0).mean() > 0.9  # a map may be clipped at zero
    alone = generator.sample(PEOPLE[1:2], [2], 3, masks=masks[1:2])
    np.testing.assert_array_equal(alone[0], volumes[1])
    other = generator.sample(PEOPLE[1:2], [7], 3, masks=masks[1:2])
    assert not np.array_equal(other, alone)


def seen(generator: Generator, masks: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The first noisy images, and what the network is shown beside them."""
    given: list[tuple[torch.Tensor, ...]] = []
    hook = generator.denoiser.register_forward_pre_hook(lambda _, images: given.append(images))
    generator.sample(PEOPLE[:2], [1, 2], 3, masks=masks)
    hook.remove()
    noisy, _, _, expected = given[0]
    assert all(torch.equal(images[3], expected) for images in given)
    return noisy, expected


@pytest.mark.parametrize("path", [DiffusionConfig(), DDPM], ids=["flow", "ddpm"])
def test_a_mask_changes_the_shape_alone(path: DiffusionConfig) -> None:
    """The noise of the maps is that of the seed. The network sees the distance to the boundary of
    the mask, and the template as the mask's boundary displaces it."""
    generator, masks = generator_of("3d", path), brains(2, 1)
    noisy, expected = seen(generator, None)
    noisy_of_masks, expected_of_masks = seen(generator, masks)
    assert torch.equal(noisy_of_masks, noisy)
    prior = generator.prior
    known = prior.expected(prior.shapes_of_masks(masks, PEOPLE[:2]), PEOPLE[:2])
    np.testing.assert_array_equal(expected_of_masks, known)
    for one, mask in zip(expected_of_masks, masks, strict=True):
        np.testing.assert_array_equal(one[-1], channels.signed_distance(mask))
    assert not torch.equal(expected_of_masks, expected)


def test_seeds_make_different_brains_of_one_shape() -> None:
    generator, mask = generator_of("3d", DiffusionConfig()), brains(1, 1)
    who = [PEOPLE[0]] * 2
    one, other = generator.sample(who, [1, 2], 3, masks=np.concatenate([mask, mask]))
    np.testing.assert_array_equal(one[:, ~mask[0]], other[:, ~mask[0]])
    assert (one != other)[:, mask[0]].mean() > 0.9


def test_masks_that_cannot_be_had_are_told() -> None:
    generator = tiny_generator("3d")
    mask = generator.prior.mask.copy()[None]

    def ask(masks: np.ndarray) -> None:
        generator.sample(PEOPLE[:1], [1], 1, masks=masks)

    with pytest.raises(UserError, match=r"shape \(1, 8, 16, 8\), found bool of shape \(2, 8"):
        ask(np.concatenate([mask, mask]))
    with pytest.raises(UserError, match="found uint8"):
        ask(mask.astype(np.uint8))
    with pytest.raises(UserError, match="mask 0 is empty"):
        ask(np.zeros_like(mask))
    outside = np.ones_like(mask)
    beyond = int((~generator.prior.mask).sum())
    assert beyond > 0
    with pytest.raises(UserError, match=f"{beyond} of its {outside.size} voxels"):
        ask(outside)
