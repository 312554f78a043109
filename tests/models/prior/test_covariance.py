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
    noise = torch.randn(n, *covariance.power.shape, generator=torch.Generator().manual_seed(seed))
    return SpectralBasis(covariance).draw(noise)


def test_fit_finds_what_all_subjects_share_and_nothing_else() -> None:
    truth = Covariance(
        np.ones((2, *SHAPE), dtype=np.float32),
        orthonormal(1).astype(np.float16),
        np.array([400], dtype=np.float32),
    )
    fields = draw(truth, 80).numpy()
    found = Covariance.fit(fields, EVERYWHERE, EVEN)
    assert found.modes.shape[0] == 1
    assert abs((found.modes[0].astype(float) * truth.modes[0]).sum()) > 0.95
    own = (fields * truth.modes[0]).sum(axis=(1, 2, 3, 4))  # 80 of them vary by other than 400
    assert found.variance[0] == pytest.approx(np.square(own).mean(), rel=0.1)
    alone = Covariance.fit(draw(coloured(2), 80).numpy(), EVERYWHERE, EVEN)
    assert alone.modes.shape[0] == 0


def test_fit_does_not_depend_on_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = draw(with_modes(), 40).numpy()
    whole = Covariance.fit(fields, EVERYWHERE, EVEN)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 7 * fields[0].nbytes)
    some = Covariance.fit(fields, EVERYWHERE, EVEN)
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


def test_drawn_fields_have_about_the_variance_of_the_subjects() -> None:
    """Half of the grid moves as one, which is a mode: variance is spread between modes and the
    rest, and none is lost."""
    rng = np.random.default_rng(4)
    fields = rng.standard_normal((200, 1, *SHAPE))
    fields[:, :, :4] = 0.3 * fields[:, :, :4] + rng.standard_normal((200, 1, 1, 1, 1))
    fields = (fields / fields.std(axis=0)).astype(np.float32)
    found = Covariance.fit(fields, EVERYWHERE, EVEN[:1])
    assert len(found.modes) > 0
    drawn = draw(found, 1000).numpy()
    assert float(drawn.var(axis=0).mean()) == pytest.approx(1, abs=0.1)
    # The half that moves as one does so in the draws as well.
    together, expected = (one[:, 0, :4].mean(axis=(1, 2, 3)).var() for one in (drawn, fields))
    assert together == pytest.approx(expected, rel=0.25)


def test_a_handful_of_subjects_gives_something_to_draw_from() -> None:
    few = draw(with_modes(), 6).numpy()
    found = Covariance.fit(few, EVERYWHERE, EVEN)
    assert (found.power > 0).all()
    # Too few to tell what others have in common with them.
    assert found.modes.shape == (0, 2, *SHAPE)
    # Six subjects span six directions; a field must be free to leave them.
    assert draw(found, 300).numpy().std() == pytest.approx(few.std(), rel=0.25)
