"""The autoencoder's promises: shapes, scale, independence of company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from contracts.errors import UserError
from models.autoencoder import Autoencoder
from models.config import LatentConfig


def _random(channels: int, config: LatentConfig) -> Autoencoder:
    """Random weights everywhere."""
    autoencoder = Autoencoder(channels, config)
    with torch.no_grad():
        for parameter in (*autoencoder.parameters(), autoencoder.components):
            if not parameter.any():
                parameter.normal_(std=0.1)
    return autoencoder


@pytest.mark.parametrize(
    "config",
    [
        LatentConfig(channels=(16,), latents=4, patch=2),
        LatentConfig(channels=(16, 32), latents=8, patch=1),
        LatentConfig(channels=(16, 16), latents=2, patch=2, res_blocks=2),
    ],
)
def test_latents_lie_on_the_coarser_grid_and_come_back(config: LatentConfig) -> None:
    torch.manual_seed(0)
    autoencoder = _random(3, config)
    volumes = np.random.default_rng(0).standard_normal((3, 3, 8, 16, 8), dtype=np.float32)
    latents = autoencoder.encode(volumes)
    assert latents.shape == (3, config.latents, *(s // config.edge for s in (8, 16, 8)))
    assert autoencoder.decode(latents).shape == volumes.shape


def test_sd_scales_latents_and_not_volumes() -> None:
    torch.manual_seed(0)
    autoencoder = _random(2, LatentConfig(channels=(16,), latents=3, patch=2))
    volumes = np.random.default_rng(0).standard_normal((2, 2, 8, 8, 8), dtype=np.float32)
    latents = autoencoder.encode(volumes)
    made = autoencoder.decode(latents)
    sd = torch.tensor([0.5, 2.0, 4.0]).view(3, 1, 1, 1)
    autoencoder.sd.copy_(sd)
    np.testing.assert_allclose(autoencoder.encode(volumes), latents / sd.numpy(), rtol=1e-5)
    np.testing.assert_allclose(autoencoder.decode(latents / sd.numpy()), made, atol=1e-5)


def test_a_volume_does_not_depend_on_its_company() -> None:
    torch.manual_seed(0)
    autoencoder = _random(2, LatentConfig(channels=(16,), latents=3, patch=2))
    volumes = np.random.default_rng(0).standard_normal((3, 2, 8, 8, 8), dtype=np.float32)
    together = autoencoder.encode(volumes)
    alone = np.concatenate([autoencoder.encode(volumes[i : i + 1]) for i in range(3)])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(
        autoencoder.decode(together)[1:], autoencoder.decode(together[1:])
    )


def test_an_untrained_one_is_the_principal_components_of_cells() -> None:
    volumes = np.random.default_rng(0).standard_normal((6, 2, 8, 8, 8), dtype=np.float32)
    volumes[:, 1] = 3 * volumes[:, 0]  # half of the values of a cell say it all
    whole = Autoencoder(2, LatentConfig(channels=(16,), latents=8, patch=2))
    whole.start(volumes)
    latents = whole.encode(volumes)
    np.testing.assert_allclose(latents.std(axis=(0, 2, 3, 4)), 1, atol=0.1)
    np.testing.assert_allclose(whole.decode(latents), volumes, atol=1e-3)
    part = Autoencoder(2, LatentConfig(channels=(16, 16), latents=8, patch=1))
    part.start(volumes)
    np.testing.assert_allclose(part.decode(part.encode(volumes)), volumes, atol=1e-3)
    with pytest.raises(UserError, match="17 latents of a cell of 16 values"):
        Autoencoder(2, LatentConfig(channels=(16,), latents=17, patch=2)).start(volumes)


def test_training_draws_from_the_posterior() -> None:
    torch.manual_seed(0)
    autoencoder = _random(2, LatentConfig(channels=(16,), latents=3, patch=2))
    volumes = torch.randn(2, 2, 8, 8, 8)
    still, mean, spread = autoencoder(volumes, torch.zeros(2, 3, 4, 4, 4))
    assert (spread > 0).all()
    np.testing.assert_allclose(mean.detach(), autoencoder.encode(volumes.numpy()), atol=1e-5)
    np.testing.assert_allclose(still.detach(), autoencoder.decode(mean.detach().numpy()), atol=1e-4)
    moved, *_ = autoencoder(volumes, torch.ones(2, 3, 4, 4, 4))
    assert not torch.allclose(still, moved)
