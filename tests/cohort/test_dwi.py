"""Reading a series and choosing what to fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cohort import dwi
from contracts import bids
from contracts.errors import UserError
from tests.cohort import phantom


def _write(folder: Path, *shells: tuple[float, int]) -> Path:
    bvals, bvecs = phantom.gradients(*shells)
    path = folder / "sub-01_dwi.nii.gz"
    values = np.random.default_rng(0).random((4, 5, 6, len(bvals))).astype(np.float32)
    phantom.write_dwi(path, values, np.diag([2.0, 2, 3, 1]), bvals, bvecs)
    return path


def test_reads_what_was_written(tmp_path: Path) -> None:
    series = dwi.read(_write(tmp_path, (1000, 12)))
    assert series.signal.shape == (4, 5, 6, 13)
    np.testing.assert_allclose(series.zooms, [2, 2, 3])
    np.testing.assert_allclose(series.b0, series.signal[..., 0])
    np.testing.assert_allclose(np.linalg.norm(series.bvecs[1:], axis=1), 1, atol=1e-6)


def test_bvec_may_be_rows_or_columns(tmp_path: Path) -> None:
    path = _write(tmp_path, (1000, 12))
    as_rows = dwi.read(path).bvecs
    columns = bids.sibling(path, ".bvec")
    np.savetxt(columns, np.loadtxt(columns).T)
    np.testing.assert_allclose(dwi.read(path).bvecs, as_rows, atol=1e-7)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda p: bids.sibling(p, ".bval").unlink(), r"no sub-01_dwi\.bval beside the series"),
        (lambda p: bids.sibling(p, ".bvec").unlink(), r"no sub-01_dwi\.bvec beside the series"),
        (lambda p: bids.sibling(p, ".bval").write_text(""), "is empty"),
        (lambda p: bids.sibling(p, ".bval").write_text("0 b1000"), "something else than numbers"),
        (lambda p: bids.sibling(p, ".bval").write_text("0 1000"), "expected 3 x 2 numbers"),
        (lambda p: p.write_bytes(p.read_bytes()[:200]), "cut short"),
        (lambda p: p.write_bytes(b"no image"), "cannot be read as NIfTI"),
    ],
)
def test_a_bad_series_is_told_in_one_line(tmp_path: Path, harm: object, message: str) -> None:
    path = _write(tmp_path, (1000, 12))
    harm(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        dwi.read(path)
    assert "\n" not in str(caught.value)


def test_volumes_without_direction_are_dropped(tmp_path: Path) -> None:
    path = _write(tmp_path, (1000, 12))
    bvecs = np.loadtxt(bids.sibling(path, ".bvec"))
    bvecs[:, 5] = 0  # a trace image
    np.savetxt(bids.sibling(path, ".bvec"), bvecs)
    series = dwi.read(path)
    assert series.dropped == 1
    assert series.signal.shape[-1] == len(series.bvals) == 12


@pytest.mark.parametrize(
    ("shells", "expected"),
    [
        ([(1000, 12), (2000, 12)], 1300),  # CamCAN: the low shell
        ([(1000, 3), (2000, 12)], 2200),  # too few in the low shell
        ([(2000, 15)], 2200),
        ([(2500, 20)], 2750),
    ],
)
def test_lowest_shell_that_allows_a_fit(
    tmp_path: Path, shells: list[tuple[float, int]], expected: float
) -> None:
    series = dwi.read(_write(tmp_path, *shells))
    assert dwi.fit_limit(series, 1300) == pytest.approx(expected)


def test_b0_written_as_a_small_number_counts_as_b0(tmp_path: Path) -> None:
    path = _write(tmp_path, (1000, 12))
    bvals = dwi.read_bvals(path)
    bvals[0] = 1.25
    np.savetxt(bids.sibling(path, ".bval"), bvals[None])
    assert dwi.fit_limit(dwi.read(path), 1300) == 1300


def test_repeats_of_three_directions_determine_no_tensor(tmp_path: Path) -> None:
    path = _write(tmp_path, (1000, 12))
    three = np.concatenate([np.zeros((1, 3)), np.tile(np.eye(3), (4, 1))])
    np.savetxt(bids.sibling(path, ".bvec"), three.T)
    with pytest.raises(UserError, match="6 different ones"):
        dwi.fit_limit(dwi.read(path), 1300)


def test_no_unweighted_volume_is_told(tmp_path: Path) -> None:
    path = _write(tmp_path, (1000, 12))
    np.savetxt(bids.sibling(path, ".bval"), np.full((1, 13), 1000.0))
    with pytest.raises(UserError, match="no unweighted volume"):
        dwi.read(path)
