"""Encoding and decoding of volumes."""

from __future__ import annotations

import numpy as np

from contracts.maps import FA, MD
from models.representation import decode, encode, reach
from tests.models.tiny import tiny_volumes

MAPS = (FA, MD)


def test_decode_inverts_encode() -> None:
    volumes, masks, _ = tiny_volumes(4)
    np.testing.assert_allclose(decode(encode(volumes, masks, MAPS), MAPS), volumes, atol=1e-7)


def test_maps_are_continued_by_their_nearest_value() -> None:
    volumes, masks, _ = tiny_volumes(1)
    encoded = encode(volumes, masks, MAPS)
    np.testing.assert_allclose(encoded[0, 0, 0], encoded[0, 0, 1])
    assert (encoded[0, :2] > 0).all()


def test_level_set_is_the_distance_to_the_rim_in_thirds_of_a_voxel() -> None:
    mask = np.zeros((1, 12, 12, 12), dtype=bool)
    mask[:, 6:] = True
    level = encode(np.zeros((1, 2, 12, 12, 12), dtype=np.float32), mask, MAPS)[0, -1, :, 0, 0]
    inside = np.array([0.5, 1.5, 2.5, 3.5, 4.5, 5.5]) / 3
    outside = np.minimum(inside, 1)  # cut there, and only there
    np.testing.assert_allclose(level, np.concatenate([-outside[::-1], inside]), atol=1e-6)


def test_decoded_values_are_possible() -> None:
    wild = np.random.default_rng(0).normal(size=(2, 3, 8, 16, 8)).astype(np.float32) * 3
    volumes = decode(wild, MAPS)
    assert volumes.min() == 0
    assert volumes[:, 0].max() <= 1
    assert volumes[:, 1].max() <= np.float32(3.2e-3)
    assert (volumes[np.broadcast_to(wild[:, -1:] <= 0, volumes.shape)] == 0).all()


def test_reach_holds_every_brain_and_a_rim() -> None:
    _, masks, _ = tiny_volumes(3)
    near = reach(masks)
    assert near[masks.any(axis=0)].all()
    assert near.sum() > masks.any(axis=0).sum()
