"""Displacements: pulling, pushing, and finding them again."""

from __future__ import annotations

import pytest
import torch
from models.warp import nearest, pull, push, refined, register, smooth
from torch import Tensor

SHAPE = (14, 16, 12)


def shifts(size: float, seed: int = 0) -> Tensor:
    """A smooth displacement that stays inside of the grid."""
    rng = torch.Generator().manual_seed(seed)
    wild = smooth(torch.randn(3, *SHAPE, generator=rng), 2.0)
    at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")).float()
    last = torch.tensor(SHAPE).view(3, 1, 1, 1) - 1
    inner = torch.minimum(at, last - at).clamp(max=3) / 3
    return size * wild / wild.abs().max() * inner


@pytest.mark.parametrize("finer", [1, 2])
def test_push_is_the_adjoint_of_pull(finer: int) -> None:
    shift, rng = shifts(1.7), torch.Generator().manual_seed(1)
    image = torch.randn(2, *((n - 1) * finer + 1 for n in SHAPE), generator=rng)
    values = torch.randn(2, *SHAPE, generator=rng)
    sums, weights = push(values, shift, finer)
    assert sums.shape == image.shape
    assert float((pull(image, shift) * values).sum()) == pytest.approx(
        float((image * sums).sum()), rel=1e-4
    )
    assert float(weights.sum()) == pytest.approx(values[0].numel(), rel=1e-5)


def test_no_displacement_changes_nothing() -> None:
    still = torch.zeros(3, *SHAPE)
    image = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for same in (pull(image, still), push(image, still)[0], nearest(image, still)):
        torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(refined(image, 2)[:, ::2, ::2, ::2], image)


def test_a_fine_image_is_seen_between_voxels() -> None:
    image = torch.randn(1, *(2 * n - 1 for n in SHAPE), generator=torch.Generator().manual_seed(0))
    half = torch.full((3, *SHAPE), 0.5)
    inside = (slice(None), *(slice(0, n - 1) for n in SHAPE))
    found = pull(image, half)
    torch.testing.assert_close(found[inside], image[:, 1::2, 1::2, 1::2], atol=1e-5, rtol=0)


def test_nearest_goes_the_way_back_without_mixing() -> None:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    shift = shifts(1.4)
    back = nearest(image, shift)
    assert set(back.flatten().tolist()) <= set(image.flatten().tolist())
    places = torch.stack(torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")).float()
    come = nearest(places + shift, shift)
    assert float((come - places).abs().max()) < 0.9


def test_a_displacement_is_found_again() -> None:
    wide = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    image, true = smooth(wide, 1.3) * 8, shifts(0.9, 4)
    volume = pull(image, true)
    still = torch.zeros(3, *SHAPE)
    found = register(volume, image, torch.full((2, *SHAPE), 10.0), still, 25, 0.8)
    inner = (slice(None), *(slice(3, -3),) * 3)
    before, after = (float((true - s)[inner].pow(2).mean()) for s in (still, found))
    assert after < 0.15 * before
    left = float((volume - pull(image, found)).pow(2).mean())
    assert left < 0.05 * float((volume - image).pow(2).mean())


@pytest.mark.parametrize("precision", [1e-3, 1e3, 1e6])
def test_any_precision_gives_numbers(precision: float) -> None:
    """Where subjects hardly differ, precision has no bound."""
    image = torch.zeros(1, *SHAPE)
    image[:, 5:9, 5:9, 5:9] = 1
    still, exact = torch.zeros(3, *SHAPE), torch.full((1, *SHAPE), precision)
    found = register(image.roll(1, 1), image, exact, still, 4, 1.0)
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) < 4


def test_what_has_no_precision_does_not_move() -> None:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    still = torch.zeros(3, *SHAPE)
    found = register(image.roll(1, 1), image, torch.zeros(1, *SHAPE), still, 3, 1.0)
    assert not found.any()


def test_smoothing_keeps_constants() -> None:
    flat = torch.full((1, *SHAPE), 2.5)
    torch.testing.assert_close(smooth(flat, 1.7), flat)
