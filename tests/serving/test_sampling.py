"""The same request gives the same bytes, in a file that every reader puts at the same place."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from contracts import volume
from contracts.errors import UserError
from contracts.maps import MAPS, map_spec
from models.config import Dim
from registry.champion import Fetched
from serving.messages import SampleRequest, sample_request
from serving.sampling import champion_model, describe, folder_model, sample
from tests.serving.conftest import AGES, SPACE


def ask(**values: Any) -> SampleRequest:
    return sample_request({"age": 65, "sex": "F", "seed": 1, "steps": 3, **values})


def values_of(packed: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
    image = nib.Nifti1Image.from_bytes(gzip.decompress(packed))
    return np.asarray(image.dataobj, dtype=np.float32)


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_same_request_same_bytes(folders: dict[Dim, Path], dim: Dim) -> None:
    first = sample(folder_model(folders[dim]), ask(dim=dim))
    again = sample(folder_model(folders[dim]), ask(dim=dim))
    assert first.volume == again.volume


@pytest.mark.parametrize("change", [{"age": 30}, {"sex": "M"}, {"seed": 2}, {"steps": 4}], ids=str)
def test_every_value_of_the_request_matters(
    folders: dict[Dim, Path], change: dict[str, Any]
) -> None:
    model = folder_model(folders["3d"])
    first, other = (values_of(sample(model, ask(**c)).volume) for c in ({}, change))
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize("dim", ["2d", "3d"])
@pytest.mark.parametrize("count", [2, 3])
def test_each_of_many_is_the_one_alone(folders: dict[Dim, Path], dim: Dim, count: int) -> None:
    model = folder_model(folders[dim])
    many = values_of(sample(model, ask(dim=dim, count=count)).volume)
    assert many.shape == (*SPACE.shape, count)
    for k in range(count):
        alone = values_of(sample(model, ask(dim=dim, seed=1 + k)).volume)
        np.testing.assert_array_equal(many[..., k], alone)


def test_threads_of_the_process_do_not_matter_and_are_left_alone(folders: dict[Dim, Path]) -> None:
    model = folder_model(folders["3d"])
    before = torch.get_num_threads()
    try:
        made = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(sample(model, ask()).volume)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert made[0] == made[1]


@pytest.mark.parametrize("name", [spec.name for spec in MAPS])
def test_the_values_are_physical(folders: dict[Dim, Path], name: str) -> None:
    made = sample(folder_model(folders["3d"]), ask(map=name))
    values = values_of(made.volume)
    spec = map_spec(name)
    assert values.min() >= 0
    assert values.max() <= np.float32(spec.maximum)
    # Around 0.4 of the network range is what the tiny generator was fitted to.
    assert values[values > 0].mean() == pytest.approx(0.4 * spec.scale, rel=0.5)
    assert made.recipe["Units"] == (spec.unit or "1")


def test_fa_and_md_of_one_request_are_one_brain(folders: dict[Dim, Path]) -> None:
    model = folder_model(folders["3d"])
    request = ask()
    (joint,) = model.generator.sample([request.condition], request.seeds, request.steps)
    for channel, name in zip(joint, ("fa", "md"), strict=True):
        values = values_of(sample(model, ask(map=name)).volume)
        np.testing.assert_allclose(values, channel, atol=1e-5 * map_spec(name).maximum)


@pytest.mark.parametrize("count", [1, 2])
def test_readers_agree_on_the_place(folders: dict[Dim, Path], tmp_path: Path, count: int) -> None:
    import SimpleITK

    path = sample(folder_model(folders["3d"]), ask(count=count)).save(tmp_path / "fa.nii.gz")
    image = nib.load(path)
    np.testing.assert_allclose(image.affine, SPACE.matrix, atol=1e-4)
    header = image.header
    assert header.get_xyzt_units()[0] == "mm"
    assert int(header["sform_code"]) == int(header["qform_code"]) == 4
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)
    other = SimpleITK.ReadImage(str(path))
    corner = other.TransformContinuousIndexToPhysicalPoint([3.0, 5.0, 2.0, 0.0][: 3 + (count > 1)])
    # ITK's axes run to the left and to the back.
    np.testing.assert_allclose(
        np.array(corner[:3]) * [-1, -1, 1], (SPACE.matrix @ [3, 5, 2, 1])[:3], atol=1e-3
    )
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(other).T, np.asarray(image.dataobj, dtype=np.float32)
    )


def test_the_header_carries_the_recipe(folders: dict[Dim, Path], tmp_path: Path) -> None:
    model = folder_model(folders["2d"])
    made = sample(model, ask(dim="2d", map="md", count=2))
    recipe = volume.read_recipe(made.save(tmp_path / "md.nii.gz"))
    assert recipe == made.recipe
    assert recipe["Synthetic"] is True
    assert recipe["ModelDigest"] == model.generator.digest
    asked = {key: recipe[key] for key in ("Dim", "Parameter", "Units", "Age", "Sex", "Steps")}
    assert asked == {
        "Dim": "2d",
        "Parameter": "MD",
        "Units": "mm^2/s",
        "Age": 65.0,
        "Sex": "F",
        "Steps": 3,
    }
    assert recipe["Seeds"] == [1, 2]


def test_a_request_outside_the_coverage_is_told(folders: dict[Dim, Path]) -> None:
    model = folder_model(folders["3d"])
    for age, sex in ((AGES[0], "F"), (AGES[1], "F"), (45, "M"), (AGES[1], "M")):
        assert sample(model, ask(age=age, sex=sex)).warnings == []
    for age, sex in ((AGES[0] - 0.5, "F"), (AGES[1] + 0.5, "F"), (25, "M")):
        (warning,) = sample(model, ask(age=age, sex=sex)).warnings
        assert "outside the training coverage" in warning
        assert f"{age:g}" in warning


def test_progress_ends_at_the_total(folders: dict[Dim, Path]) -> None:
    told: list[tuple[int, int]] = []
    sample(
        folder_model(folders["3d"]),
        ask(count=3),
        on_step=lambda done, total: told.append((done, total)),
    )
    assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


def test_a_generator_of_another_dimension_is_refused(folders: dict[Dim, Path]) -> None:
    with pytest.raises(UserError, match="2d generator"):
        sample(folder_model(folders["2d"]), ask(dim="3d"))


def test_the_champion_is_the_registered_one(champions: dict[Dim, Fetched]) -> None:
    model = champion_model("3d")
    assert (model.name, model.version) == ("dti-3d", "3")
    assert describe(model)["digest"] == champions["3d"].digest
    assert describe(model)["age_coverage"] == list(AGES)


def test_a_champion_with_other_content_is_refused(champions: dict[Dim, Fetched]) -> None:
    champions["3d"] = replace(champions["3d"], digest="0" * 16)
    with pytest.raises(UserError, match="expected digest 0000"):
        champion_model("3d")
