"""Volumes as channels: encoding, decoding, and the signed distance to the boundary."""

from __future__ import annotations

import numpy as np
import pytest

from cohort.channels import at_depth, brain, count, decode, encode, possible_brain, signed_distance
from contracts.errors import UserError
from contracts.maps import ALL_MAPS, FA, MD
from tests.cohort.tiny import tiny_volumes

MAPS = (FA, MD)


def test_decode_inverts_encode() -> None:
    volumes, masks, _ = tiny_volumes(4)
    np.testing.assert_allclose(decode(encode(volumes, masks, MAPS), MAPS), volumes, atol=1e-7)


def test_maps_are_continued_by_their_nearest_value() -> None:
    volumes, masks, _ = tiny_volumes(1)
    encoded = encode(volumes, masks, MAPS)
    np.testing.assert_allclose(encoded[0, 0, 0], encoded[0, 0, 1])
    assert (encoded[0, :2] > 0).all()


def test_the_signed_distance_is_in_units_of_three_voxels() -> None:
    mask = np.zeros((1, 12, 12, 12), dtype=bool)
    mask[:, 6:] = True
    encoded = encode(np.zeros((1, 2, 12, 12, 12), dtype=np.float32), mask, MAPS)
    inside = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]) / 3
    outside = np.minimum(inside, 1)  # cut there, and only there
    expected = np.concatenate([-outside[::-1], inside])
    np.testing.assert_allclose(encoded[0, -1, :, 0, 0], expected, atol=1e-6)
    assert at_depth(1.5) == pytest.approx(0.5)


def test_the_signed_distance_of_a_mask_is_the_encoded_one() -> None:
    masks = np.random.default_rng(3).random((2, 8, 16, 8)) < 0.7
    encoded = encode(np.zeros((2, 2, 8, 16, 8), dtype=np.float32), masks, MAPS)
    for mask, channel in zip(masks, encoded[:, -1], strict=True):
        np.testing.assert_array_equal(signed_distance(mask), channel)
    np.testing.assert_array_equal(brain(encoded), masks)


def test_decoded_values_are_possible() -> None:
    wild = np.random.default_rng(0).normal(size=(2, 3, 8, 16, 8)).astype(np.float32) * 3
    volumes = decode(wild, MAPS)
    assert volumes.min() == 0
    assert volumes[:, 0].max() <= 1
    assert volumes[:, 1].max() <= np.float32(3.2e-3)
    assert (volumes[np.broadcast_to(wild[:, -1:] <= 0, volumes.shape)] == 0).all()


def _four(n: int) -> tuple[np.ndarray, np.ndarray]:
    """FA, MD, AD and RD (n, 4, 8, 16, 8) of random tensors, and masks."""
    _, masks, _ = tiny_volumes(n)
    values = -np.sort(-np.random.default_rng(0).exponential(0.5e-3, (*masks.shape, 3)))
    mean, size = values.mean(axis=-1), (values**2).sum(axis=-1)
    fa = np.sqrt(np.maximum(1.5 * (1 - 3 * mean**2 / size), 0))
    maps = np.stack([fa, mean, values[..., 0], values[..., 1:].mean(axis=-1)], axis=1)
    return (maps * masks[:, None]).astype(np.float32), masks


def test_four_maps_are_three_channels_and_come_back() -> None:
    volumes, masks = _four(3)
    encoded = encode(volumes, masks, ALL_MAPS)
    assert encoded.shape[1] == count(ALL_MAPS) == 4
    assert encoded[:, 2].min() >= 0
    assert encoded[:, 2].max() <= 1
    np.testing.assert_array_equal(encoded[:, [0, 1, 3]], encode(volumes[:, :2], masks, MAPS))
    scale = np.array([m.scale for m in ALL_MAPS])[:, None, None, None]
    np.testing.assert_allclose(decode(encoded, ALL_MAPS) / scale, volumes / scale, atol=3e-4)


def test_any_channels_decode_to_tensors() -> None:
    wild = np.random.default_rng(0).normal(0.4, 0.5, size=(2, 4, 8, 16, 8)).astype(np.float32)
    volumes = decode(wild, ALL_MAPS)
    fa, md, ad, rd = np.moveaxis(volumes, 1, 0).astype(np.float64)
    assert (ad >= md * (1 - 1e-6)).all()
    assert (md * (1 + 1e-6) >= rd).all()
    np.testing.assert_allclose(ad + 2 * rd, 3 * md, atol=2e-9)
    np.testing.assert_array_equal(volumes[:, :2], decode(wild[:, [0, 1, 3]], MAPS))
    # Of l2 and l3, RD is the mean; FA's sum of squares fixes them.
    left = np.sqrt(np.maximum(3 * md**2 / (1 - 2 * fa**2 / 3) - ad**2 - 2 * rd**2, 0) / 2)
    values = np.stack([ad, rd + left, rd - left])
    assert values.min() > -5e-6
    apart = 1.5 * ((values - md) ** 2).sum(axis=0)
    again = np.sqrt(apart / np.maximum((values**2).sum(axis=0), 1e-12))
    np.testing.assert_allclose(again[md > 1e-5], fa[md > 1e-5], atol=1e-3)


def test_other_maps_than_the_generators_are_refused() -> None:
    volumes, masks = _four(1)
    with pytest.raises(UserError, match=r"expected volumes of FA, MD, found 4 maps"):
        encode(volumes, masks, MAPS)


def test_possible_brain_holds_every_brain_and_one_voxel_around_it() -> None:
    _, masks, _ = tiny_volumes(3)
    near = possible_brain(masks)
    assert near[masks.any(axis=0)].all()
    assert near.sum() > masks.any(axis=0).sum()
