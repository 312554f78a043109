"""Volumes whose brain is a given mask."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from models.denoiser import Estimate
from models.field import Covariance, Waves, spread
from models.identity import GeneratorConfig
from models.path import Path
from models.sampler import Sampler
from torch import Tensor

from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import FA, MD, MapSpec
from models import representation
from models.config import PathConfig, SamplerName
from models.coverage import Coverage
from models.generator import Generator
from tests.models.fields import SHAPE
from tests.models.tiny import NETWORK, SPACE, framed_prior, tiny_generator, tiny_volumes

PEOPLE = [Condition(30, "F"), Condition(70, "M"), Condition(50, "F")]
SAMPLERS: tuple[SamplerName, ...] = ("dpm++", "ddim", "ancestral")


def brains(n: int, seed: int) -> np.ndarray:
    """Ellipsoids of several sizes, (n, 8, 16, 8)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(s) for s in SPACE.shape], indexing="ij"), axis=-1)
    radii = np.array([3.2, 6.5, 3.2]) * rng.uniform(0.8, 1.1, (n, 3))
    away = (grid - np.array([3.5, 7.5, 3.5])) / radii[:, None, None, None]
    inside: np.ndarray = (away**2).sum(axis=-1) < 1
    return inside


def generator_of(dim: Literal["2d", "3d"], path: PathConfig) -> Generator:
    volumes, _, people = tiny_volumes(40)
    masks = brains(40, 0)
    volumes = np.where(masks[:, None], np.maximum(volumes, 1e-4), 0).astype(np.float32)
    encoded = representation.encode(volumes, masks, (FA, MD))
    config = GeneratorConfig(dim, SPACE, ("fa", "md"), NETWORK, path, Coverage.of(people))
    torch.manual_seed(0)
    reach = representation.reach(masks)
    generator = Generator(config, framed_prior(encoded, reach, people))
    with torch.no_grad():
        for parameter in generator.denoiser.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return generator


@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize(
    "path",
    [
        PathConfig(),
        PathConfig(path="cosine", prediction="epsilon", start="none", sampler="ancestral"),
    ],
)
def test_the_brain_is_the_one_given(
    dim: Literal["2d", "3d"], path: PathConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator, masks = generator_of(dim, path), brains(3, 1)
    found: list[np.ndarray] = []
    decode = representation.decode

    def look(encoded: np.ndarray, maps: tuple[MapSpec, ...]) -> np.ndarray:
        found.extend(representation.brain(encoded))
        return decode(encoded, maps)

    monkeypatch.setattr(representation, "decode", look)
    volumes = generator.sample(PEOPLE, [1, 2, 3], 3, masks=masks)
    np.testing.assert_array_equal(found[:3], masks)
    assert (volumes.transpose(0, 2, 3, 4, 1)[~masks] == 0).all()
    alone = generator.sample(PEOPLE[1:2], [2], 3, masks=masks[1:2])
    np.testing.assert_array_equal(alone[0], volumes[1])
    other = generator.sample(PEOPLE[1:2], [7], 3, masks=masks[1:2])
    assert not np.array_equal(other, alone)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_given_channels_are_known_on_the_way_and_in_the_end(sampler: SamplerName) -> None:
    path = Path(PathConfig(sampler=sampler))
    waves = Waves(coupled())
    rng = torch.Generator().manual_seed(0)
    noise, given = (torch.randn(2, c, *SHAPE, generator=rng) for c in (2, 1))
    seen: list[tuple[Tensor, float]] = []

    def denoise(x: Tensor, t: float) -> Estimate:
        seen.append((x[:, -1:], t))
        return gaussian(path, waves, x, t)

    found = Sampler(sampler, path, waves, 4)(denoise, lambda: noise, torch.ones(SHAPE), given=given)
    for channel, t in seen:
        torch.testing.assert_close(channel, (1 - t) * given + t * noise[:, -1:])
    assert torch.equal(found[:, -1:], given)


def coupled() -> Covariance:
    """Two white channels that share a mode of large variance."""
    mode = np.full((1, 2, *SHAPE), 1 / np.sqrt(2 * np.prod(SHAPE)), dtype=np.float16)
    power = np.ones((2, *SHAPE), dtype=np.float32)
    return Covariance(power, mode, np.array([400.0], dtype=np.float32))


def gaussian(path: Path, waves: Waves, x: Tensor, t: float) -> Estimate:
    a, s = (float(part) for part in path(torch.tensor(t, dtype=torch.float64)))
    known = waves.inverse(waves(x) * (a * waves.power / (a**2 * waves.power + s**2)))
    unit = spread(waves.power, a, s)
    return Estimate(known, unit, known, unit)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_other_channels_follow_the_given_one(sampler: SamplerName) -> None:
    """In a Gaussian field their mean is known: C_mg C_gg^-1 times what is given.

    The shared mode adds 400 / n to every covariance between voxels, n = 2 N of them.
    """
    path, voxels = Path(PathConfig()), int(np.prod(SHAPE))
    waves = Waves(coupled())
    given = torch.full((40, 1, *SHAPE), 0.8)
    shared = (400 - 1) / (2 * voxels)
    expected = 0.8 * voxels * shared / (1 + voxels * shared)
    rng = torch.Generator().manual_seed(0)

    draws = Sampler(sampler, path, waves, 16)(
        lambda x, t: gaussian(path, waves, x, t),
        lambda: torch.randn(40, 2, *SHAPE, generator=rng),
        torch.ones(SHAPE),
        given=given,
    )
    means = draws[:, 0].mean(dim=(1, 2, 3))
    assert float(means.mean()) == pytest.approx(expected, abs=0.05 * expected)
    left = (shared / (1 + voxels * shared) + 1 / voxels) ** 0.5
    assert float(means.std()) == pytest.approx(left, rel=0.25)


def test_the_level_set_of_a_mask_is_the_encoded_one() -> None:
    masks = brains(2, 3)
    encoded = representation.encode(np.zeros((2, 2, *SPACE.shape), np.float32), masks, (FA, MD))
    for mask, channel in zip(masks, encoded[:, -1], strict=True):
        np.testing.assert_array_equal(representation.level_set(mask), channel)


def test_masks_that_cannot_be_had_are_told() -> None:
    generator = tiny_generator("3d")
    mask = generator.prior.start.mask.copy()[None]

    def ask(masks: np.ndarray) -> None:
        generator.sample(PEOPLE[:1], [1], 1, masks=masks)

    with pytest.raises(UserError, match=r"shape \(1, 8, 16, 8\), found bool of shape \(2, 8"):
        ask(np.concatenate([mask, mask]))
    with pytest.raises(UserError, match="found uint8"):
        ask(mask.astype(np.uint8))
    with pytest.raises(UserError, match="mask 0 is empty"):
        ask(np.zeros_like(mask))
    outside = np.ones_like(mask)
    beyond = int((~generator.prior.start.mask).sum())
    if beyond:
        with pytest.raises(UserError, match=f"{beyond} of its {outside.size} voxels"):
            ask(outside)
