"""Elastic registration: displacements that are known are found again."""

from __future__ import annotations

import pytest
import torch

from cohort.elastic_registration import register
from cohort.interpolation import displaced, smooth
from tests.cohort.test_interpolation import SHAPE, bend

STILL = torch.zeros(3, *SHAPE)


def test_a_displacement_is_found_again() -> None:
    wide = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    image, true = smooth(wide, 1.3) * 8, bend(0.9, 4)
    volume = displaced(image, true)
    found = register(volume, image, torch.full((2, *SHAPE), 10.0), STILL, 25, 0.8)
    inner = (slice(None), *(slice(3, -3),) * 3)
    before, after = (float((true - u)[inner].pow(2).mean()) for u in (STILL, found))
    assert after < 0.15 * before
    left = float((volume - displaced(image, found)).pow(2).mean())
    assert left < 0.05 * float((volume - image).pow(2).mean())


@pytest.mark.parametrize("inverse_sd", [1e-3, 1e3, 1e6])
def test_any_precision_gives_numbers(inverse_sd: float) -> None:
    """Where subjects hardly differ, inverse_sd has no bound."""
    image = torch.zeros(1, *SHAPE)
    image[:, 5:9, 5:9, 5:9] = 1
    exact = torch.full((1, *SHAPE), inverse_sd)
    found = register(image.roll(1, 1), image, exact, STILL, 4, 1.0)
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) < 4


def test_what_has_no_precision_does_not_move() -> None:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    found = register(image.roll(1, 1), image, torch.zeros(1, *SHAPE), STILL, 3, 1.0)
    assert not found.any()


def test_an_image_that_fits_already_does_not_move() -> None:
    image = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(3))
    found = register(image, image, torch.ones(1, *SHAPE), STILL, 3, 1.0)
    assert float(found.abs().max()) < 1e-4
