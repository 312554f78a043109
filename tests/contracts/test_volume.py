"""Volume files: same place and values in other programs, same bytes again, clear errors."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from contracts import volume
from contracts.errors import UserError
from contracts.maps import FA, MD, map_spec
from contracts.space import Space, mni_space

SPACE = mni_space(4)


def picture() -> np.ndarray:
    return np.random.default_rng(0).random(SPACE.shape, dtype=np.float32)


def test_nibabel_and_simpleitk_find_each_voxel_at_the_same_place(tmp_path: Path) -> None:
    values = picture()
    path = tmp_path / "v.nii.gz"
    volume.write(path, values, SPACE, {"seed": 1})
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), values)
    np.testing.assert_allclose(image.affine, SPACE.matrix)
    assert image.header["sform_code"] == image.header["qform_code"] == 4
    assert image.header.get_xyzt_units()[0] == "mm"
    other = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other).T, values)
    for index in ((0, 0, 0), (10, 20, 30)):
        x, y, z = other.TransformIndexToPhysicalPoint(index)
        ras = np.array([-x, -y, z])  # SimpleITK counts left and back as positive
        np.testing.assert_allclose(ras, (SPACE.matrix @ [*index, 1])[:3], atol=1e-4)


def test_same_volume_same_bytes_and_recipe_comes_back(tmp_path: Path) -> None:
    recipe = {"seed": 3, "age": 65.0}
    assert volume.encode(picture(), SPACE, recipe) == volume.encode(picture(), SPACE, recipe)
    volume.write(tmp_path / "v.nii.gz", picture(), SPACE, recipe)
    assert volume.read_recipe(tmp_path / "v.nii.gz") == recipe
    assert [p.name for p in tmp_path.iterdir()] == ["v.nii.gz"]


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_truncated_file_is_told_in_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "v.nii.gz"
    path.write_bytes(volume.encode(picture(), SPACE)[:keep])
    with pytest.raises(UserError, match="cut short") as told:
        volume.read(path)
    assert "\n" not in str(told.value)


def test_a_volume_of_another_grid_is_refused(tmp_path: Path) -> None:
    volume.write(tmp_path / "v.nii.gz", picture(), SPACE)
    moved = SPACE.matrix
    moved[0, 3] += 4
    other = Space.from_affine("other", SPACE.shape, moved)
    with pytest.raises(UserError, match=r"is not in other: .*cohort.derive"):
        volume.read_on(tmp_path / "v.nii.gz", other)
    with pytest.raises(UserError, match="no such volume"):
        volume.read(tmp_path / "w.nii.gz")


def test_space_round_trip_and_size() -> None:
    assert Space.from_json(SPACE.to_json()) == SPACE
    assert SPACE.shape == (40, 48, 40)
    assert mni_space(2).shape == (80, 96, 80)
    assert SPACE.voxel_ml == pytest.approx(0.064)
    with pytest.raises(UserError, match="use 4, 2 or 1"):
        mni_space(3)


def test_both_resolutions_cover_the_same_head() -> None:
    for corner, sign in ((0, -1), (-1, 1)):
        edges = []
        for space in (mni_space(2), mni_space(4)):
            index = np.zeros(3) if corner == 0 else np.array(space.shape) - 1
            centre = (space.matrix @ [*index, 1])[:3]
            edges.append(centre + sign * np.array(space.zooms) / 2)
        np.testing.assert_allclose(*edges)


@pytest.mark.parametrize("spec", [FA, MD])
def test_map_transform_is_invertible_and_clips_to_the_possible(spec) -> None:  # type: ignore[no-untyped-def]
    values = np.linspace(0, spec.maximum, 50, dtype=np.float32)
    np.testing.assert_allclose(spec.from_network(spec.to_network(values)), values, rtol=1e-6)
    assert spec.to_network(values).max() == pytest.approx(1)
    assert spec.clip(np.array([-1, 9], dtype=np.float32)).tolist() == [0, np.float32(spec.maximum)]
    assert map_spec(spec.name.upper()) is spec
