"""The spectral basis of a Gaussian field, and what is left of it once a noisy image is seen."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.prior.covariance import Covariance


class SpectralBasis(nn.Module):
    """The orthonormal basis in which a `Covariance` is diagonal.

    The coefficients (B, C, X, Y, Z) are those of the cosine transform (DCT-II), rotated so that
    the first K of them belong to the modes. The rotation is a product of K Householder
    reflections, I - U T U' in the compact form of Schreiber & Van Loan (1989). It is close
    to the identity on what is orthogonal to the modes.

    Attributes
    ----------
    power : (C, X, Y, Z), variance of each coefficient.
    """

    power: Tensor
    reflectors: Tensor
    rotated: Tensor

    def __init__(self, covariance: Covariance) -> None:
        super().__init__()
        for name, size in zip("xyz", covariance.power.shape[1:], strict=True):
            self.register_buffer(name, torch.from_numpy(_cosines(size).astype(np.float32)))
        modes = self._cosine(torch.from_numpy(covariance.modes.astype(np.float32)))
        reflectors, triangle = _reflections(modes.flatten(1).double().numpy())
        if len(modes) == 1:
            # MKL rounds a product with a single row by a volume's place in the batch.
            reflectors, triangle = np.pad(reflectors, ((0, 1), (0, 0))), np.pad(triangle, (0, 1))
        self.register_buffer("reflectors", torch.from_numpy(reflectors.astype(np.float32)))
        # T' U' is kept rather than T: in a product with a matrix as small as T some processors
        # round the volumes of a batch in different ways.
        self.register_buffer(
            "rotated", torch.from_numpy((triangle.T @ reflectors).astype("float32"))
        )
        power = covariance.power.copy()
        power.ravel()[: len(modes)] = covariance.variance
        self.register_buffer("power", torch.from_numpy(power))

    def forward(self, fields: Tensor) -> Tensor:
        """Returns the coefficients of fields (B, C, X, Y, Z)."""
        return self._reflected(self._cosine(fields), self.rotated, self.reflectors)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Returns the fields (B, C, X, Y, Z) of coefficients."""
        x, y, z = (self.get_buffer(name).T for name in "xyz")
        return self._along(self._reflected(coefficients, self.reflectors, self.rotated), x, y, z)

    def draw(self, noise: Tensor) -> Tensor:
        """Returns fields of this covariance, which are white noise (B, C, X, Y, Z) filtered."""
        return self.inverse(self(noise) * self.power.sqrt())

    def _cosine(self, fields: Tensor) -> Tensor:
        x, y, z = (self.get_buffer(name) for name in "xyz")
        return self._along(fields, x, y, z)

    @staticmethod
    def _reflected(waves: Tensor, along: Tensor, to: Tensor) -> Tensor:
        flat = waves.flatten(1)
        return (flat - (flat @ along.T) @ to).reshape(waves.shape)

    @staticmethod
    def _along(images: Tensor, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        images = images @ z.T
        images = y @ images
        return (x @ images.flatten(-2)).reshape(images.shape)


def _reflections(modes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns U' (K, N) and T (K, K) of the rotation I - U T U' whose transpose takes K orthonormal
    modes to the first K coordinates."""
    count = len(modes)
    if count == 0:
        return modes, np.zeros((0, 0))
    raw, tau = np.linalg.qr(modes.T, mode="raw")
    reflectors = np.triu(raw, k=1)
    reflectors[np.arange(count), np.arange(count)] = 1
    triangle = np.zeros((count, count))
    for k in range(count):
        triangle[:k, k] = -tau[k] * triangle[:k, :k] @ (reflectors[:k] @ reflectors[k])
        triangle[k, k] = tau[k]
    return reflectors, triangle


def posterior_variance(power: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
    """Returns the variance of coefficients of given power once a c + s eps is seen of them."""
    return s**2 * power / (a**2 * power + s**2)


def posterior_sd(power: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
    """Returns the root of the mean posterior variance of the coefficients.

    Parameters
    ----------
    power : (..., C, X, Y, Z).

    Returns
    -------
    (..., 1, 1, 1, 1).
    """
    return posterior_variance(power, a, s).mean(dim=(-4, -3, -2, -1), keepdim=True).sqrt()


def _cosines(size: int) -> NDArray[np.float64]:
    """Returns the orthonormal DCT-II matrix, (wave, place)."""
    from scipy.fft import dct

    rows: NDArray[np.float64] = dct(np.eye(size), axis=0, norm="ortho")
    return rows
