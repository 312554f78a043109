"""What the network sees of a volume and estimates of it: slices, cubes, and what is expected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.config import Dim, PathName, Plane
from models.diffusion.denoiser import Denoiser
from models.prior.covariance import Covariance
from tests.models.fields import SHAPE, coloured, stationary, white
from tests.models.priors import SMALL, denoiser_of, expected_of, noise, prior_of, randomised

PATHS: tuple[PathName, ...] = ("flow", "ddpm")
TIMES = torch.tensor([0.3, 0.7])
# Beginnings of two cubes of each of two volumes.
CORNERS = torch.tensor([[[0, 0, 0], [3, 11, 2]], [[4, 5, 1], [0, 12, 4]]])


def trained(dim: Dim, covariance: Covariance | None = None, path: PathName = "flow") -> Denoiser:
    torch.manual_seed(0)
    return randomised(denoiser_of(dim, covariance or coloured(2), path))


def cubes(corners: Tensor, edge: int) -> Tensor:
    """The voxels of cubes (B, K, 3, edge) that begin at corners (B, K, 3)."""
    return corners[..., None] + torch.arange(edge)


def numbered(n: int, channels: int) -> Tensor:
    """Volumes no two of whose values are alike."""
    return torch.arange(float(n * channels * np.prod(SHAPE))).view(n, channels, *SHAPE)


def test_cubes_are_cut_out_one_volume_after_the_other() -> None:
    volumes = numbered(2, 3)
    found = denoiser_of("3d", white(2)).take(volumes, cubes(CORNERS, 4))
    assert found.shape == (4, 3, 4, 4, 4)
    for k, (x, y, z) in enumerate(CORNERS.flatten(0, 1).tolist()):
        cut = volumes[k // 2, :, x : x + 4, y : y + 4, z : z + 4]
        assert torch.equal(found[k], cut)


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 2), ("coronal", 3), ("axial", 4)])
def test_slices_are_taken_along_the_axis_of_their_plane(plane: Plane, axis: int) -> None:
    volumes, slices = numbered(2, 3), torch.tensor([[5, 0, 5], [7, 2, 1]])
    found = denoiser_of("2d", white(2), plane=plane).take(volumes, slices)
    for one, volume, chosen in zip(found, volumes, slices, strict=True):
        assert torch.equal(one, volume.index_select(axis - 1, chosen))


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_all_of_a_volume_is_the_volume(dim: Dim) -> None:
    volumes = numbered(2, 3)
    assert torch.equal(denoiser_of(dim, white(2)).take(volumes, None), volumes)


@pytest.mark.parametrize("path", PATHS)
def test_slices_agree_with_the_whole_volume(path: PathName) -> None:
    denoiser, noisy, expected = trained("2d", path=path), noise(2), expected_of(2)
    whole = denoiser(noisy, TIMES, torch.zeros(2, 2), expected)
    chosen = torch.tensor([[0, 5], [7, 2]])
    some = denoiser(noisy, TIMES, torch.zeros(2, 2), expected, chosen)
    for b in range(2):
        torch.testing.assert_close(
            some.clean[b], whole.clean[b][..., chosen[b]], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("path", PATHS)
def test_while_the_network_is_silent_cubes_agree_with_the_whole_volume(path: PathName) -> None:
    """The Gaussian estimate is that of the volume, however little of it the network sees."""
    mask = torch.rand(SHAPE, generator=torch.Generator().manual_seed(2)) < 0.8
    prior = prior_of(coloured(2))
    prior = replace(prior, template=replace(prior.template, mask=mask.numpy()))
    denoiser, noisy, expected = Denoiser("3d", prior, SMALL, path), noise(2), expected_of(2)
    parts = cubes(CORNERS, 4)
    with torch.no_grad():
        whole = denoiser(noisy, TIMES, torch.zeros(2, 2), expected)
        some = denoiser(noisy, TIMES, torch.zeros(2, 2), expected, parts)
    assert whole.clean.any()
    assert torch.equal(some.clean, denoiser.take(whole.clean, parts))
    assert torch.equal(some.gaussian_mean, denoiser.take(whole.gaussian_mean, parts))
    for one, all_of_it in ((some.scale, whole.scale), (some.gaussian_sd, whole.gaussian_sd)):
        assert torch.equal(one, all_of_it.repeat_interleave(2, dim=0))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_estimates_are_zero_outside_the_mask(dim: Dim, path: PathName) -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[2:6, 4:12] = True
    prior = prior_of(coloured(2))
    prior = replace(prior, template=replace(prior.template, mask=mask.numpy()))
    denoiser = randomised(Denoiser(dim, prior, SMALL, path))
    parts = cubes(CORNERS, 4) if dim == "3d" else torch.tensor([[5, 0, 5], [7, 2, 1]])
    for chosen in (None, parts):
        with torch.no_grad():
            clean = denoiser(noise(2), TIMES, torch.zeros(2, 2), expected_of(2), chosen).clean
        inside = denoiser.take(mask.expand(2, 2, *SHAPE), chosen)
        assert not clean[~inside].any()
        assert (clean[inside] != 0).all()


@pytest.mark.parametrize("path", PATHS)
def test_each_cube_has_the_time_the_condition_and_the_image_of_its_volume(path: PathName) -> None:
    """Cubes as large as the grid are the volume, twice."""
    side = 8
    power = coloured(2).power[:, :, :side]
    denoiser = randomised(Denoiser("3d", prior_of(stationary(power)), SMALL, path))
    noisy, expected = noise(2)[:, :, :, :side], expected_of(2)[:, :, :, :side]
    condition = torch.tensor([[1.0, 0.5], [-1.0, -0.5]])
    parts = torch.arange(side).expand(2, 2, 3, side)
    with torch.no_grad():
        whole = denoiser(noisy, TIMES, condition, expected).clean
        found = denoiser(noisy, TIMES, condition, expected, parts).clean
    assert not torch.allclose(whole[0], whole[1], atol=0.1)
    torch.testing.assert_close(found, whole.repeat_interleave(2, dim=0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_what_is_expected_reaches_the_estimate(dim: Dim, channel: int, path: PathName) -> None:
    """Each map does, and so does the distance to the boundary; the closed form is as before."""
    denoiser, noisy, expected = trained(dim, path=path), noise(2), expected_of(2)
    other = expected.clone()
    other[1, channel] += 1
    with torch.no_grad():
        before, after = (
            denoiser(noisy, TIMES, torch.zeros(2, 2), shown) for shown in (expected, other)
        )
    assert torch.equal(before.gaussian_mean, after.gaussian_mean)
    changed = (after.clean - before.clean).abs().amax(dim=(1, 2, 3, 4))
    assert changed[1] > 1e-3
    assert changed[0] < 1e-5  # another volume, of which nothing else is expected


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_what_is_expected_is_seen_where_the_condition_is_withheld(dim: Dim) -> None:
    denoiser = randomised(Denoiser(dim, prior_of(coloured(2)), SMALL, "flow", null_token=True))
    withheld = torch.ones(2, dtype=torch.bool)
    with torch.no_grad():
        one, other = (
            denoiser(noise(2), TIMES, torch.zeros(2, 2), expected_of(2, seed=k), withheld=withheld)
            for k in (1, 2)
        )
    assert not torch.allclose(one.clean, other.clean, atol=1e-3)


@pytest.mark.parametrize("image", ["noisy", "expected"])
@pytest.mark.parametrize("path", PATHS)
def test_2d_network_sees_only_neighbouring_slices_beyond_the_gaussian_part(
    path: PathName, image: str
) -> None:
    denoiser = trained("2d", white(2), path)
    noisy, expected = noise(1), expected_of(1)
    before = denoiser(noisy, TIMES[:1], torch.zeros(1, 2), expected).clean
    (noisy if image == "noisy" else expected)[..., 6] += 5
    after = denoiser(noisy, TIMES[:1], torch.zeros(1, 2), expected).clean
    change = (after - before).abs().amax(dim=(0, 1, 2, 3))
    assert (change[5:] > 1e-3).all()
    assert (change[:5] < 1e-4).all()
