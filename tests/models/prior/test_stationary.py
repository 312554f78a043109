"""Stationary fields: known answers of drawing, and fits that find what fields were drawn from."""

from __future__ import annotations

import numpy as np

from models.prior.stationary import StationaryField, autocorrelation

SHAPE = (12, 16, 10)


def smooth_field(width: float = 3.0, channels: int = 2) -> StationaryField:
    """A field of variance 1 whose correlation falls with the distance as a Gaussian."""
    lags = [np.minimum(np.arange(2 * n), np.arange(2 * n, 0, -1)) for n in SHAPE]
    x, y, z = np.meshgrid(*lags, indexing="ij")
    power = np.fft.fftn(np.exp(-(x**2 + y**2 + z**2) / (2 * width**2))).real
    one = np.maximum(power[: SHAPE[0] + 1, : SHAPE[1] + 1, : SHAPE[2] + 1], 0)
    return StationaryField(np.stack([one] * channels).astype(np.float32))


def drawn(field: StationaryField, n: int, seed: int = 0) -> np.ndarray:
    """Draws n fields."""
    rng = np.random.default_rng(seed)
    return field.draw(rng.standard_normal((n, *field.noise_shape), dtype=np.float32))


def test_flat_power_leaves_the_noise_as_it_is() -> None:
    flat = StationaryField(np.ones((2, *(n + 1 for n in SHAPE)), dtype=np.float32))
    noise = np.random.default_rng(0).standard_normal((3, *flat.noise_shape), dtype=np.float32)
    x, y, z = SHAPE
    np.testing.assert_allclose(flat.draw(noise), noise[:, :, :x, :y, :z], atol=1e-5)


def test_a_smooth_field_varies_as_much_in_the_middle_as_at_the_edge() -> None:
    fields = drawn(smooth_field(), 400)
    variance = fields.var(axis=0).mean(axis=0)
    middle = variance[4:8, 6:10, 3:7].mean()
    corner = np.mean([variance[i, j, k] for i in (0, -1) for j in (0, -1) for k in (0, -1)])
    assert abs(middle - 1) < 0.1
    assert abs(corner - 1) < 0.1


def test_neighbours_are_as_alike_as_the_covariance_says() -> None:
    fields = drawn(smooth_field(width=3.0), 300)
    product = (fields[..., 1:, :, :] * fields[..., :-1, :, :]).mean()
    assert abs(product - np.exp(-1 / 18)) < 0.03


def test_channels_are_independent() -> None:
    fields = drawn(smooth_field(width=1.0), 300)
    assert abs((fields[:, 0] * fields[:, 1]).mean()) < 0.02


def test_a_fit_finds_variance_and_likeness_in_spite_of_a_mask() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:-2, 3:-2, 1:-3] = True
    scale = np.array([1.0, 3.0], dtype=np.float32)[:, None, None, None]
    fields = drawn(smooth_field(width=1.5), 200) * scale * mask
    again = drawn(StationaryField.fit(fields, mask), 200, seed=1) / scale
    np.testing.assert_allclose(again.var(axis=(0, 2, 3, 4)), 1, atol=0.05)
    product = (again[..., 1:] * again[..., :-1]).mean()
    # The window takes a little off, the more the smaller the grid.
    assert abs(product - np.exp(-1 / 4.5)) < 0.08


def test_the_autocorrelation_of_one_voxel_is_its_square() -> None:
    mask = np.ones(SHAPE, dtype=bool)
    field = np.zeros((1, *SHAPE), dtype=np.float32)
    field[0, 5, 5, 5] = 2.0
    lags, variance = autocorrelation([field], mask, np.ones((1, *SHAPE)))
    assert np.isclose(lags[0, 0, 0, 0], 4 / np.prod(SHAPE))
    assert np.isclose(variance[0], 4 / np.prod(SHAPE))
    assert np.abs(lags[0, 1:4, 0, 0]).max() < 1e-8
