"""The fit finds covariances that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.prior import covariance as module
from models.prior.covariance import Covariance, stationary_power
from models.prior.spectrum import SpectralBasis
from tests.models.fields import SHAPE, coloured, frequency, orthonormal, with_modes

EVERYWHERE = np.ones(SHAPE, dtype=bool)
EVEN = np.ones((2, *SHAPE), dtype=np.float32)
NONE = np.zeros((0, 2 * 8 * 16 * 8), dtype=np.float32)


def draw(covariance: Covariance, n: int, seed: int = 1) -> torch.Tensor:
    basis = SpectralBasis(covariance)
    noise = torch.randn(n, *covariance.power.shape, generator=torch.Generator().manual_seed(seed))
    return basis.inverse(basis.power.sqrt() * noise)


def test_fit_finds_how_given_directions_vary() -> None:
    truth = with_modes()
    fields = draw(truth, 2000).numpy()
    rng = np.random.default_rng(0)
    turned = np.tensordot(rng.standard_normal((5, 3)), truth.modes, axes=1)  # dependent, too
    found = Covariance.fit(fields, EVERYWHERE, EVEN, turned.astype(np.float32))
    assert found.modes.shape[0] == 3

    def dense(c: Covariance) -> np.ndarray:
        flat = c.modes.reshape(3, -1).astype(np.float64)
        return flat.T @ (c.variance[:, None] * flat)

    assert np.linalg.norm(dense(found) - dense(truth)) < 0.15 * np.linalg.norm(dense(truth))


def test_fit_finds_what_all_subjects_share_and_nothing_else() -> None:
    truth = Covariance(
        np.ones((2, *SHAPE), dtype=np.float32),
        orthonormal(1).astype(np.float16),
        np.array([400], dtype=np.float32),
    )
    found = Covariance.fit(draw(truth, 80).numpy(), EVERYWHERE, EVEN, NONE)
    assert found.modes.shape[0] == 1
    assert abs((found.modes[0].astype(float) * truth.modes[0]).sum()) > 0.95
    assert found.variance[0] == pytest.approx(400, rel=0.4)
    alone = Covariance.fit(draw(coloured(2), 80).numpy(), EVERYWHERE, EVEN, NONE)
    assert alone.modes.shape[0] == 0


def test_fit_does_not_depend_on_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = draw(with_modes(), 40).numpy()
    whole = Covariance.fit(fields, EVERYWHERE, EVEN, NONE)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * fields[0].nbytes)
    some = Covariance.fit(fields, EVERYWHERE, EVEN, NONE)
    assert len(whole.modes) > 0
    np.testing.assert_allclose(some.variance, whole.variance, rtol=1e-4)
    np.testing.assert_allclose(some.power, whole.power, rtol=1e-3)


def test_power_is_that_of_the_field() -> None:
    truth = coloured(2)
    found = stationary_power(draw(truth, 300).numpy(), EVERYWHERE, EVEN, NONE)
    assert found.mean() == pytest.approx(truth.power.mean(), rel=0.05)
    flat = frequency(SHAPE) > 0.35  # where the power is smooth over the fit's window
    assert np.median((found / truth.power)[:, flat]) == pytest.approx(1, abs=0.25)


def test_power_does_not_depend_on_how_much_of_the_grid_is_brain() -> None:
    half = EVERYWHERE.copy()
    half[:, 8:] = False
    fields = draw(coloured(2), 400).numpy()
    whole = stationary_power(fields, EVERYWHERE, EVEN, NONE)
    part = stationary_power(fields * half, half, EVEN, NONE)
    assert (part / whole).mean() == pytest.approx(1, abs=0.05)
    # The longest waves, too, of which half a grid holds half.
    np.testing.assert_allclose(part[:, 0, 0, 0], whole[:, 0, 0, 0], rtol=0.25)


def test_places_that_weigh_more_decide_the_power() -> None:
    rng = np.random.default_rng(0)
    rough = rng.standard_normal((200, 2, *SHAPE))
    smooth = draw(coloured(2, peak=40), 200).numpy()
    left = np.zeros(SHAPE, dtype=bool)
    left[:, :8] = True
    fields = np.where(left, rough, smooth / smooth.std()).astype(np.float32)
    of_left = stationary_power(fields, EVERYWHERE, EVEN * np.where(left, 1, 0.05), NONE)
    of_right = stationary_power(fields, EVERYWHERE, EVEN * np.where(left, 0.05, 1), NONE)
    high = frequency(SHAPE) > 0.35
    assert of_left[:, high].mean() == pytest.approx(1, abs=0.1)
    assert of_right[:, high].mean() < 0.5


def test_a_handful_of_subjects_gives_something_to_draw_from() -> None:
    few = draw(with_modes(), 6).numpy()
    found = Covariance.fit(few, EVERYWHERE, EVEN, orthonormal(9, seed=4).astype(np.float32))
    assert (found.power > 0).all()
    assert (found.variance > 0).all()
    # Six subjects span six directions; a field must be free to leave them.
    assert draw(found, 300).numpy().std() == pytest.approx(few.std(), rel=0.25)
