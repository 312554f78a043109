"""Interpolation at displaced places, its adjoint, its inverse, and smoothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from cohort.interpolation import (
    LinearInterpolation,
    displaced,
    inverse_displacement,
    inversely_displaced,
    smooth,
    upsampled,
)

SHAPE = (14, 16, 12)


def grid() -> Tensor:
    return torch.stack(torch.meshgrid(*(torch.arange(n) for n in SHAPE), indexing="ij")).float()


def bend(size: float, seed: int = 0) -> Tensor:
    """A smooth displacement of at most `size` voxels that ends with the grid."""
    rng = torch.Generator().manual_seed(seed)
    wild = smooth(torch.randn(3, *SHAPE, generator=rng), 2.0)
    at = grid()
    last = torch.tensor(SHAPE).view(3, 1, 1, 1) - 1
    inner = torch.minimum(at, last - at).clamp(max=3) / 3
    return size * wild / wild.abs().max() * inner


@pytest.mark.parametrize("finer", [1, 2])
def test_the_adjoint_is_the_transpose(finer: int) -> None:
    at, rng = LinearInterpolation(bend(1.7)), torch.Generator().manual_seed(1)
    image = torch.randn(2, *((n - 1) * finer + 1 for n in SHAPE), generator=rng)
    values = torch.randn(2, *SHAPE, generator=rng)
    sums, weights = at.adjoint(values, finer)
    assert sums.shape == image.shape
    for k in range(2):  # the channels keep apart
        left = (at.apply(image)[k].double() * values[k]).sum()
        right = (image[k].double() * sums[k]).sum()
        assert float(left) == pytest.approx(float(right), rel=1e-4)
    assert float(weights.sum()) == pytest.approx(values[0].numel(), rel=1e-5)


def test_an_image_linear_in_space_is_interpolated_exactly() -> None:
    u, slope = bend(1.7), torch.tensor([0.3, -1.1, 0.7]).view(3, 1, 1, 1)
    found = displaced((slope * grid()).sum(dim=0, keepdim=True), u)
    expected = (slope * (grid() + u)).sum(dim=0, keepdim=True)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_places_beyond_the_grid_have_the_value_of_its_edge() -> None:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    far = torch.zeros(3, *SHAPE)
    far[0] = 100.0
    torch.testing.assert_close(displaced(image, far), image[:, -1:].expand(-1, SHAPE[0], -1, -1))


def test_no_displacement_changes_nothing() -> None:
    still = torch.zeros(3, *SHAPE)
    image = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    adjoint = LinearInterpolation(still).adjoint(image)[0]
    for same in (displaced(image, still), adjoint, inversely_displaced(image, still)):
        torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    assert not inverse_displacement(still).any()
    torch.testing.assert_close(upsampled(image, 2)[:, ::2, ::2, ::2], image)


def test_a_fine_image_is_seen_between_voxels() -> None:
    image = torch.randn(1, *(2 * n - 1 for n in SHAPE), generator=torch.Generator().manual_seed(0))
    half = torch.full((3, *SHAPE), 0.5)
    inside = (slice(None), *(slice(0, n - 1) for n in SHAPE))
    found = displaced(image, half)
    torch.testing.assert_close(found[inside], image[:, 1::2, 1::2, 1::2], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [0.2, 1.0])
def test_a_displacement_and_its_inverse_are_the_identity(size: float) -> None:
    """u then v: x + u(x) + v(x + u(x)) = x, and v then u."""
    shape = (24, 26, 22)
    waves = [torch.sin(torch.pi * torch.arange(n) / (n - 1)) for n in shape]
    wide = torch.einsum("x,y,z->xyz", *waves)  # 0 at the edges of the grid
    u = size * torch.stack([wide, -0.7 * wide, 0.5 * wide])
    v = inverse_displacement(u)
    for first, second in ((u, v), (v, u)):
        off = first + displaced(second, first)
        assert float(off.norm(dim=0).max()) < 0.02
    assert float((u + v).norm(dim=0).max()) > size**2 / 10  # the inverse is not -u


def test_the_inverse_stays_inside_of_the_grid() -> None:
    u = torch.full((3, *SHAPE), -2.0)
    places = grid() + inverse_displacement(u)
    for place, n in zip(places, SHAPE, strict=True):
        assert float(place.min()) >= 0
        assert float(place.max()) <= n - 1


def test_values_move_back_without_mixing() -> None:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    u = bend(1.4)
    back = inversely_displaced(image, u)
    assert set(back.flatten().tolist()) <= set(image.flatten().tolist())
    come = inversely_displaced(grid() + u, u)
    assert float((come - grid()).abs().max()) < 0.9


def test_smoothing_keeps_constants() -> None:
    flat = torch.full((1, *SHAPE), 2.5)
    torch.testing.assert_close(smooth(flat, 1.7), flat)


def test_smoothing_has_the_width_that_was_asked_for() -> None:
    image = torch.zeros(1, 31, 31, 31)
    image[0, 15, 15, 15] = 1
    found = smooth(image, 1.7)[0].double()
    place = torch.arange(31).double() - 15
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    for axes in ((1, 2), (0, 2), (0, 1)):
        variance = float((found.sum(dim=axes) * place**2).sum())
        assert variance**0.5 == pytest.approx(1.7, rel=1e-3)
