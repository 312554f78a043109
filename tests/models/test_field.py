"""The transform is orthonormal, and the fit finds covariances that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.field import Covariance, Waves
from tests.models.fields import SHAPE, coloured, frequency

EVERYWHERE = np.ones(SHAPE, dtype=bool)
ZOOMS = (10.0, 10.0, 10.0)  # a wave of 60 mm is 6 voxels long


def rotated(seed: int = 0) -> Covariance:
    """Long waves of both channels mixed by a random rotation, each mode of its own variance."""
    rng = np.random.default_rng(seed)
    plain = coloured(2)
    long = frequency(SHAPE) * 60 / 10 <= 1
    size = 2 * int(long.sum())
    modes, _ = np.linalg.qr(rng.standard_normal((size, size)))
    power = plain.power.copy()
    power[:, long] = np.geomspace(0.5, 30, size).reshape(2, -1)
    mixture, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    return Covariance(power, mixture.astype(np.float32), long, modes.astype(np.float32))


def draw(covariance: Covariance, n: int, seed: int = 1) -> torch.Tensor:
    waves = Waves(covariance)
    noise = torch.randn(n, *covariance.power.shape, generator=torch.Generator().manual_seed(seed))
    return waves.inverse(waves.power.sqrt() * noise)


@pytest.mark.parametrize("covariance", [coloured(2), rotated()], ids=["stationary", "long"])
def test_transform_keeps_lengths_and_has_an_inverse(covariance: Covariance) -> None:
    waves = Waves(covariance)
    x = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(waves.inverse(waves(x)), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(waves(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


def test_autocast_leaves_the_transform_exact() -> None:
    waves = Waves(rotated())
    x = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    exact = waves(x), waves.inverse(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(waves(x), exact[0])
        assert torch.equal(waves.inverse(x), exact[1])


def test_fit_finds_how_long_waves_vary_together() -> None:
    truth = rotated()
    fields = draw(truth, 4000).numpy()
    found = Covariance.fit(fields, EVERYWHERE, ZOOMS)
    assert np.array_equal(found.long, truth.long)

    def dense(c: Covariance) -> np.ndarray:
        count = int(c.long.sum())
        modes = np.kron(c.mixture, np.eye(count)) @ c.modes
        return (modes * c.power[:, c.long].ravel()) @ modes.T

    error = np.linalg.norm(dense(found) - dense(truth)) / np.linalg.norm(dense(truth))
    assert error < 0.15


def test_fit_finds_the_power_of_short_waves() -> None:
    truth = coloured(2)
    found = Covariance.fit(draw(truth, 300).numpy(), EVERYWHERE, ZOOMS)
    short = frequency(SHAPE) > 0.35  # where the power is smooth over the fit's window
    ratio = np.sort(found.power[:, short], axis=0) / truth.power[:, short]
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() < 0.15


def test_few_subjects_are_shrunk_to_something_that_can_be_drawn_from() -> None:
    few = draw(rotated(), 12).numpy()
    found = Covariance.fit(few, EVERYWHERE, ZOOMS)
    assert (found.power > 0).all()
    # Twelve subjects span twelve directions; a field must be free to leave them.
    assert np.sort(found.power[:, found.long].ravel())[0] > 0.05
    draws = draw(found, 500).numpy()
    assert draws.std() == pytest.approx(few.std(), rel=0.15)


def test_channels_that_move_together_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((60, 1, 1, 1, 1))
    fields = (
        0.3 * rng.standard_normal((60, 2, *SHAPE)) + shared * np.array([1, -1])[:, None, None, None]
    )
    found = Covariance.fit(fields.astype(np.float32), EVERYWHERE, ZOOMS)
    means = draw(found, 400).numpy().mean(axis=(2, 3, 4))
    assert np.corrcoef(means.T)[0, 1] < -0.9


def test_neighbouring_voxels_keep_the_correlation_of_their_channels() -> None:
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((80, 1, *SHAPE))
    fields = 0.8 * shared * np.array([1, -1])[:, None, None, None]
    fields = fields + 0.6 * rng.standard_normal((80, 2, *SHAPE))
    found = Covariance.fit(fields.astype(np.float32), EVERYWHERE, ZOOMS)
    draws = draw(found, 100).numpy()
    expected = -0.64
    assert np.corrcoef(draws[:, 0].ravel(), draws[:, 1].ravel())[0, 1] == pytest.approx(
        expected, abs=0.05
    )


def test_power_does_not_depend_on_how_much_of_the_grid_is_brain() -> None:
    half = EVERYWHERE.copy()
    half[4:] = False
    whole = np.random.default_rng(0).standard_normal((200, 1, *SHAPE)).astype(np.float32)
    found = Covariance.fit(whole * half, half, ZOOMS)
    assert found.power[:, ~found.long].mean() == pytest.approx(1, abs=0.05)
