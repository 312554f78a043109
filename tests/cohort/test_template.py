"""The stage `template`: its files, and that they stay the same."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort import channels
from cohort.group_template import GroupTemplate
from cohort.interpolation import displaced, inverse_displacement
from cohort.subjects import SubjectFiles
from cohort.template import make_group_template
from cohort.template_estimator import FINER, TemplateEstimator
from cohort.template_files import TemplateFiles
from contracts import closure, volume
from contracts.errors import UserError
from contracts.maps import MAPS
from tests.cohort.tiny import BENT_SPACE, bent_brains, write_volumes

TRAIN, OTHERS = 12, 2
COUNT = TRAIN + OTHERS


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with bent brains at 4 mm; the last two are of the target group."""
    data = tmp_path_factory.mktemp("data")
    write_volumes(data, BENT_SPACE, bent_brains(COUNT), train=TRAIN)
    return data


def make(cohort: Path, data: Path) -> TemplateFiles:
    """Runs the stage on a cohort, with its output and work in the folder `data`."""
    make_group_template(
        cohort / "derivatives", cohort / "split.json", data / "template", data / "work"
    )
    return TemplateFiles.open(data / "template")


@pytest.fixture(scope="module")
def data(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the stage has run once."""
    folder = tmp_path_factory.mktemp("first")
    make(cohort, folder)
    return folder


@pytest.fixture(scope="module")
def files(data: Path) -> TemplateFiles:
    return TemplateFiles.open(data / "template")


def content(root: Path) -> dict[str, str]:
    """Hashes of the files under a folder, by name."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def table(files: TemplateFiles) -> dict[str, dict[str, float]]:
    with (files.root / "registration.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    return {row.pop("subject"): {k: float(v) for k, v in row.items()} for row in rows}


def subjects(cohort: Path) -> SubjectFiles:
    return SubjectFiles.find(cohort / "derivatives", cohort / "split.json", "base", "train")


def test_the_folder_holds_template_subjects_table_and_picture(files: TemplateFiles) -> None:
    expected = {"template.safetensors", "space.json", "registration.tsv", "qc.png"}
    expected |= {f"tpl-group_param-{name}_dwimap.nii.gz" for name in ("fa", "md")}
    for i in range(COUNT):
        stem = f"sub-{i:04d}/dwi/sub-{i:04d}"
        expected.add(f"{stem}_from-group_to-subject_mode-image_xfm.nii.gz")
        for name in ("fa", "md"):
            expected.add(f"{stem}_space-group_model-tensor_param-{name}_dwimap.nii.gz")
    assert set(content(files.root)) == expected
    assert (files.root / "qc.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert files.space == BENT_SPACE


def test_what_is_read_back_is_what_was_fitted(
    cohort: Path, files: TemplateFiles, tmp_path: Path
) -> None:
    part = subjects(cohort)
    encoded = part.encoded(tmp_path)
    reach = channels.possible_brain(channels.brain(encoded))
    template, displacements = GroupTemplate.fit(encoded, reach, part.conditions, sigma=1.0)
    for name, expected in template.arrays().items():
        np.testing.assert_array_equal(files.template().arrays()[name], expected, err_msg=name)
    for name, u in zip(part.ids, displacements, strict=True):
        np.testing.assert_array_equal(files.displacement(name), u)
    # Whom the template was not made from is registered to it as it is read back.
    other = SubjectFiles.of(part.cohort, [f"sub-{TRAIN:04d}"])
    u = files.template().displacement(other.load().encoded()[0], other.conditions[0])
    np.testing.assert_array_equal(files.displacement(other.ids[0]), u)
    assert u.any()


def test_the_template_is_a_map_on_half_voxels(files: TemplateFiles) -> None:
    found, affine = volume.read(files.root / "tpl-group_param-md_dwimap.nii.gz")
    image = files.template().image
    assert found.shape == image.shape[1:]
    np.testing.assert_allclose(affine[:3, :3] * FINER, BENT_SPACE.matrix[:3, :3])
    np.testing.assert_allclose(affine[:3, 3], BENT_SPACE.matrix[:3, 3])
    inside = image[-1] > 0
    np.testing.assert_allclose(found[inside], MAPS[1].from_network(image[1])[inside], rtol=1e-6)
    assert not found[~inside].any()


def test_registration_brings_subjects_nearer_and_folds_nothing(files: TemplateFiles) -> None:
    rows = table(files)
    assert list(rows) == [f"sub-{i:04d}" for i in range(COUNT)]
    for i, row in enumerate(rows.values()):
        # A template of a dozen knows less of those whom it has not seen.
        most = 0.7 if i < TRAIN else 1
        assert row["fa_rms_after"] < most * row["fa_rms_before"]
        assert row["min_jacobian"] > 0
        assert 0 < row["mean_mm"] < row["max_mm"] < 12


def test_registered_maps_are_the_subjects_at_the_inverse_and_vary_less(
    cohort: Path, files: TemplateFiles
) -> None:
    part = subjects(cohort)
    maps = part.load().volumes
    registered = np.empty_like(maps)
    for i, name in enumerate(part.ids):
        for k, spec in enumerate(MAPS):
            stem = f"{name}_space-group_model-tensor_param-{spec.name}_dwimap.nii.gz"
            registered[i, k] = volume.read_on(files.root / name / "dwi" / stem, files.space)
        inverse = inverse_displacement(torch.from_numpy(files.displacement(name)))
        expected = displaced(torch.from_numpy(maps[i]), inverse).numpy()
        np.testing.assert_array_equal(registered[i], expected)
    inside = files.template().on_grid()[-1] > 0.3
    before, after = (v[:, :, inside].std(axis=0).mean(axis=1) for v in (maps, registered))
    assert (after < 0.7 * before).all()


def test_a_second_run_writes_the_same_bytes(
    cohort: Path, files: TemplateFiles, tmp_path: Path
) -> None:
    assert content(make(cohort, tmp_path).root) == content(files.root)
    assert not list(tmp_path.glob("*.partial"))
    assert [path.name.split("-")[0] for path in (tmp_path / "work").glob("*.npy")] == ["encoded"]


def test_a_run_that_was_stopped_goes_on(
    cohort: Path, files: TemplateFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []
    update, store = TemplateEstimator.update_template, TemplateEstimator.store

    def counted(self: TemplateEstimator, *given: object) -> None:
        rounds.append(0)
        update(self, *given)  # type: ignore[arg-type]

    def stops(self: TemplateEstimator, path: Path, number: int) -> None:
        store(self, path, number)
        if number == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TemplateEstimator, "update_template", counted)
    with monkeypatch.context() as patch:
        patch.setattr(TemplateEstimator, "store", stops)
        with pytest.raises(KeyboardInterrupt):
            make(cohort, tmp_path)
    assert not (tmp_path / "template").exists()
    done = len(rounds)
    again = make(cohort, tmp_path)
    assert len(rounds) == 2 * done  # two rounds of four were left
    assert content(again.root) == content(files.root)


def test_a_run_that_fails_leaves_the_last_template(
    cohort: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    before = content(tmp_path / "template")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cohort.template_qc.plot", stop)
    with pytest.raises(KeyboardInterrupt):
        make(cohort, tmp_path)
    assert content(tmp_path / "template") == before


def test_the_digest_follows_template_and_displacements(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path, dirs_exist_ok=True)
    files, names = TemplateFiles.open(tmp_path / "template"), ["sub-0000", "sub-0001"]
    first = files.digest(names)
    assert TemplateFiles.open(data / "template").digest(names) == first
    assert files.digest(names[::-1]) != first
    moved = files.displacement(names[0])
    files.write_subject(names[0], moved + 1, np.zeros((0, *BENT_SPACE.shape), np.float32), ())
    assert files.digest(names) != first


def test_what_is_missing_is_told(cohort: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no group template in .*: run `dvc repro template`"):
        TemplateFiles.open(tmp_path)
    with pytest.raises(UserError, match=r"sub-9999 is not registered, .*`dvc repro template`"):
        TemplateFiles.open(data / "template").displacement("sub-9999")
    with pytest.raises(UserError, match="no derivatives in"):
        make_group_template(tmp_path, cohort / "split.json", tmp_path / "out", tmp_path / "work")


def test_kept_work_belongs_to_this_code() -> None:
    names = {path.name for path in closure.files("cohort.template")}
    assert {"template.py", "group_template.py", "elastic_registration.py", "channels.py"} <= names
