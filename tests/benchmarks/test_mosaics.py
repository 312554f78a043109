"""Mosaics: people made of real maps in one piece, with known effects of age."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.mosaics import AGE_EFFECT, RealMaps, build, person
from cohort.derivatives import Participant
from contracts import volume
from contracts.errors import UserError
from contracts.space import mni_space
from evaluation.local_texture import pieces

SPACE = mni_space(2.0)
# Values of two maps, FA and MD, each the same everywhere in a ball.
VALUES = ((0.4, 0.8e-3), (0.5, 1.0e-3))


def ball(fa: float, md: float) -> NDArray[np.float32]:
    inside = (SPACE.centres() ** 2).sum(axis=-1) < 60**2
    return np.stack([np.where(inside, fa, 0), np.where(inside, md, 0)]).astype(np.float32)


def write(folder: Path, name: str, fa: float, md: float) -> None:
    for label, image in zip(("fa", "md"), ball(fa, md), strict=True):
        volume.write(folder / f"{name}_param-{label}_dwimap.nii.gz", image, SPACE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, values in enumerate(VALUES):
        write(tmp_path / "maps", f"real-{i}", *values)
    return tmp_path / "maps"


def made(real: RealMaps, age: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    who = Participant("sub-1", age, "F", "base", "A")
    return person(real, who, np.random.default_rng(3))


def test_scans_have_equal_means_over_white_matter(folder: Path) -> None:
    real = RealMaps.read(folder)
    means = [[m[k][m[0] > 0.3].mean(dtype=float) for k in (0, 1)] for m in real.maps]
    np.testing.assert_allclose(means, [[0.45, 0.9e-3]] * 2, rtol=1e-4)


def test_age_changes_values_by_the_known_amount_and_nothing_else(folder: Path) -> None:
    real = RealMaps.read(folder)
    (young, mask), (old, same) = made(real, 50), made(real, 70)
    np.testing.assert_array_equal(mask, same)
    assert pieces(mask) == 1
    for k, name in enumerate(("fa", "md")):
        ratio = old[k][mask] / young[k][mask]
        np.testing.assert_allclose(ratio, 1 + 2 * AGE_EFFECT[name], rtol=1e-6)


def test_a_full_folder_is_not_touched(folder: Path, tmp_path: Path) -> None:
    cohort = build(folder, tmp_path / "out", 8, 1)
    assert len(cohort.participants) == 8
    assert cohort.masks([p.id for p in cohort.participants]).any(axis=(1, 2, 3)).all()
    with pytest.raises(UserError, match="is not empty"):
        build(folder, folder, 8, 1)
    assert len(list(folder.iterdir())) == 4


def test_maps_that_lack_a_partner_or_a_grid_are_named(folder: Path) -> None:
    (folder / "real-1_param-md_dwimap.nii.gz").unlink()
    with pytest.raises(UserError, match=r"real-1_param-fa.* has no MD map"):
        RealMaps.read(folder)
    coarse = mni_space(4.0)
    volume.write(folder / "real-1_param-md_dwimap.nii.gz",
                 np.zeros(coarse.shape, dtype=np.float32), coarse)  # fmt: skip
    with pytest.raises(UserError, match="on one grid"):
        RealMaps.read(folder)
