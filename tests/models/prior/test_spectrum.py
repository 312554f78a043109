"""The spectral basis is orthonormal and diagonalises its covariance; posteriors are Gaussian's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.prior.covariance import Covariance
from models.prior.spectrum import SpectralBasis, posterior_sd, posterior_variance
from tests.models.fields import SHAPE, coloured, with_modes


@pytest.mark.parametrize("covariance", [coloured(2), with_modes()], ids=["stationary", "modes"])
def test_the_basis_keeps_lengths_and_has_an_inverse(covariance: Covariance) -> None:
    basis = SpectralBasis(covariance)
    x = torch.randn(3, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(basis.inverse(basis(x)), x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(basis(x).flatten(1).norm(dim=1), x.flatten(1).norm(dim=1))


def test_modes_are_the_first_coefficients() -> None:
    covariance = with_modes()
    basis = SpectralBasis(covariance)
    found = basis(torch.from_numpy(covariance.modes.astype(np.float32))).flatten(1)
    # Half precision leaves a thousandth.
    torch.testing.assert_close(found[:, :3].abs(), torch.eye(3), atol=3e-3, rtol=0)
    assert found[:, 3:].abs().max() < 3e-3
    np.testing.assert_array_equal(basis.power.flatten()[:3], covariance.variance)


def test_the_basis_diagonalises_the_covariance() -> None:
    """Modes of known variance and a stationary rest, put together voxel by voxel."""
    plain, covariance = SpectralBasis(coloured(2)), with_modes()
    basis = SpectralBasis(covariance)
    size = basis.power.numel()
    unit = torch.eye(size, dtype=torch.float64).view(size, *basis.power.shape)

    def dense(one: SpectralBasis) -> torch.Tensor:
        rows = one.inverse(unit.float()).flatten(1).double()
        return rows.T @ (one.power.double().flatten()[:, None] * rows)

    modes = torch.from_numpy(covariance.modes.astype(np.float64)).flatten(1)
    apart = torch.eye(size, dtype=torch.float64) - modes.T @ modes
    expected = apart @ dense(plain) @ apart
    expected += modes.T @ (torch.from_numpy(covariance.variance).double()[:, None] * modes)
    off = dense(basis) - expected
    # The rotation leaves alone what is orthogonal to the modes only nearly.
    assert float(off.norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("covariance", [coloured(2), with_modes()], ids=["stationary", "modes"])
def test_draws_are_white_noise_filtered(covariance: Covariance) -> None:
    """Each coefficient of the noise is multiplied by the standard deviation that it is to have."""
    basis = SpectralBasis(covariance)
    noise = torch.randn(200, 2, *SHAPE, generator=torch.Generator().manual_seed(3))
    drawn = basis(basis.draw(noise))
    torch.testing.assert_close(drawn, basis(noise) * basis.power.sqrt(), atol=1e-3, rtol=1e-4)
    variance = drawn.square().mean(dim=0)
    assert float((variance / basis.power).mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_field_is_rounded_alike_wherever_it_is_in_a_batch(count: int) -> None:
    """A sample must not depend on the others of its batch, to the last bit."""
    basis = SpectralBasis(with_modes(count))
    fields = torch.randn(12, 2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for one, other in zip(fields[::2], fields[1::2], strict=True):
        before, after = torch.stack([one, other]), torch.stack([other, one])
        for transform in (basis, basis.inverse, basis.draw):
            assert torch.equal(transform(before), transform(after).flip(0))


def test_posteriors_are_those_of_a_gaussian() -> None:
    power = torch.tensor([0.5, 4.0], dtype=torch.float64)
    a, s = 0.3, 0.7
    inverse_sd = 1 / power + a**2 / s**2
    torch.testing.assert_close(posterior_variance(power, a, s), 1 / inverse_sd)
    fields = power.view(1, 1, 1, 2)
    torch.testing.assert_close(
        posterior_sd(fields, a, s).flatten(), (1 / inverse_sd).mean().sqrt()[None]
    )
