"""The simulated cohort: determinism, known effects, layout, resume."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort import simulate, tensor
from cohort.derivatives import Derivatives
from cohort.simulate import SimulateSettings, recruit
from cohort.simulation import acquisition
from cohort.simulation import person as simulated
from cohort.simulation.deformation import sample, to_index
from cohort.simulation.fibres import strand_points
from cohort.simulation.person import Person, PersonTissue
from cohort.simulation.regional_norms import NORMS
from cohort.simulation.tissue import LABELS, TissueTemplate
from cohort.simulation.tracts import REGIONS, TRACTS
from contracts import closure
from contracts.bids import map_name, mask_name
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import FA, MD
from contracts.space import mni_space

SETTINGS = SimulateSettings(
    seed=7, resolution_mm=4.0, output="maps", base_subjects=2, target_subjects=1, max_bvalue=1300.0
)
SPACE = mni_space(4)
NUMBER = {name: index for index, name in LABELS.items()}


@pytest.fixture(scope="module")
def template() -> TissueTemplate:
    return simulate.make_tissue_template(SETTINGS, SPACE)


@pytest.fixture(scope="module")
def work(template: TissueTemplate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    template.save(folder / f"simulate-{simulate.recipe_hash(SETTINGS)}" / simulate.TISSUE_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def bids(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "bids"
    simulate.simulate(SETTINGS, out, work, workers=2)
    return out


@pytest.fixture(scope="module")
def ready(bids: Path) -> Derivatives:
    return Derivatives.open(bids / "derivatives" / "simulated")


def _fresh(work: Path, tmp_path: Path) -> Path:
    """A work folder that holds the template but no subject."""
    name = f"simulate-{simulate.recipe_hash(SETTINGS)}"
    (tmp_path / "work" / name).mkdir(parents=True)
    shutil.copy(work / name / simulate.TISSUE_TEMPLATE, tmp_path / "work" / name)
    return tmp_path / "work"


def _measured(tissue: PersonTissue, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """FA and MD (um2/ms) of a person's voxels."""
    scheme = acquisition.camcan_scheme().up_to(1300)
    volumes = simulated.measure(tissue, person, scheme)[:, None, None]
    every = np.ones((len(volumes), 1, 1), dtype=np.bool_)
    found = tensor.fit(volumes, scheme.bvals, scheme.bvecs, every, 1300)
    return found.fa.ravel(), 1000 * found.md.ravel()


def _tracts(template: TissueTemplate, person: Person) -> tuple[float, float, float]:
    """Mean FA and MD (um2/ms) of a person's tracts, and their ventricles in ml."""
    tissue = simulated.person_tissue(template, SPACE, person, simulated.draw_traits(person))
    ventricle = (tissue.labels == NUMBER["ventricle"]).sum() * SPACE.voxel_ml
    fa, md = _measured(tissue.select((tissue.labels > 0) & (tissue.labels <= len(REGIONS))), person)
    return float(fa.mean()), float(md.mean()), float(ventricle)


def _files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_subject_s_bytes_depend_on_neither_the_cohort_s_size_nor_the_workers(
    bids: Path, work: Path, tmp_path: Path
) -> None:
    fewer = dataclasses.replace(SETTINGS, base_subjects=1)
    simulate.simulate(fewer, tmp_path / "bids", _fresh(work, tmp_path), workers=1)
    for label in ("sub-sim0001", "sub-sim5001"):
        one = _files(bids / "derivatives" / "simulated" / label)
        other = _files(tmp_path / "bids" / "derivatives" / "simulated" / label)
        assert one
        assert one == other


def test_another_seed_is_another_cohort() -> None:
    other = dataclasses.replace(SETTINGS, seed=8)
    assert [p.age for p in recruit(other)] != [p.age for p in recruit(SETTINGS)]
    assert simulate.recipe_hash(other) != simulate.recipe_hash(SETTINGS)


def test_subjects_of_other_code_are_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = simulate.recipe_hash(SETTINGS)
    monkeypatch.setattr("contracts.closure.digest", lambda *modules: f"other {modules}")
    assert simulate.recipe_hash(SETTINGS) != before


def test_the_key_of_finished_subjects_covers_the_whole_simulator() -> None:
    parts = [p for n, p in closure.module_files().items() if n.startswith("cohort.simulation.")]
    assert len(parts) >= 8
    assert set(parts) <= set(closure.files("cohort.simulate"))


def test_ages_are_even_in_base_and_older_in_target() -> None:
    cohort = recruit(dataclasses.replace(SETTINGS, base_subjects=144, target_subjects=48))
    base = np.array([p.age for p in cohort if p.group == "base"])
    target = np.array([p.age for p in cohort if p.group == "target"])
    assert base.min() >= 18
    assert base.max() <= 88
    counts, _ = np.histogram(base, bins=7, range=(18, 88))
    assert counts.min() >= 17
    assert counts.max() <= 24
    assert target.mean() > base.mean() + 8
    women = sum(p.sex == "F" for p in cohort)
    assert abs(women - 96) < 12
    assert {(p.group, p.site) for p in cohort} == {("base", "A"), ("target", "B")}
    assert len({p.id for p in cohort}) == 192


def test_fa_falls_and_md_rises_with_age_faster_when_old(template: TissueTemplate) -> None:
    means = {}
    for age in (25.0, 55.0, 85.0):
        person = Person(Condition(age, "F"), acquisition.SCANNER_A, (3, 1))
        means[age] = np.array(_tracts(template, person))
    early = (means[55.0] - means[25.0]) / 30
    late = (means[85.0] - means[55.0]) / 30
    fa_slope, md_slope, ventricle_slope = (early + late) / 2
    assert -0.0016 < fa_slope < -0.0006
    assert 0.0012 < md_slope < 0.0032
    assert 0.15 < ventricle_slope < 1.0
    assert late[0] < early[0]
    assert late[1] > early[1]


def test_the_sex_effect_is_small_and_there(template: TissueTemplate) -> None:
    found = {}
    for sex in ("F", "M"):
        condition = Condition(40.0, "F" if sex == "F" else "M")
        found[sex], _, _ = _tracts(template, Person(condition, acquisition.SCANNER_A, (3, 2)))
    assert 0.001 < found["M"] - found["F"] < 0.010


def test_site_b_reads_lower_fa_and_higher_md(template: TissueTemplate) -> None:
    condition = Condition(60.0, "F")
    fa_a, md_a, _ = _tracts(template, Person(condition, acquisition.SCANNER_A, (3, 3)))
    fa_b, md_b, _ = _tracts(template, Person(condition, acquisition.SCANNER_B, (3, 3)))
    assert fa_b < fa_a - 0.01
    assert md_b > md_a + 0.02


def test_regions_meet_the_published_norms(template: TissueTemplate) -> None:
    total = np.zeros((2, len(REGIONS)))
    for number in range(3):
        person = Person(Condition(54.0, "F"), acquisition.SCANNER_A, (11, number))
        tissue = simulated.person_tissue(template, SPACE, person, simulated.AVERAGE)
        tissue = tissue.select((tissue.labels > 0) & (tissue.labels <= len(REGIONS)))
        fa, _ = _measured(tissue, person)
        for index in range(len(REGIONS)):
            inside = tissue.labels == index + 1
            total[:, index] += fa[inside].sum(), inside.sum()
    norms = np.array([NORMS[name][0] for name in REGIONS])
    found = total[0] / total[1]
    assert np.abs((found - norms).mean()) < 0.02
    # Regions of a few voxels at 4 mm are not held to it one by one.
    big = total[1] > 3 * 40
    assert np.abs(found - norms)[big].max() < 0.05
    assert np.corrcoef(found, norms)[0, 1] > 0.93


def test_the_corpus_callosum_is_a_smooth_sheet(template: TissueTemplate) -> None:
    points, _ = strand_points(TRACTS["corpus_callosum"])
    middle = points[points[:, 0] == 0]
    along = sample(template.fa, to_index(middle, template.space)).astype(np.float64)
    trend = np.convolve(np.pad(along, 4, mode="edge"), np.ones(9) / 9, mode="valid")
    assert len(middle) >= 20
    # The last strands at either end are the sheet's edge.
    inner = slice(4, -4)
    assert np.std((along - trend)[inner]) / along.mean() < 0.02
    assert np.std(along[inner]) / along.mean() < 0.10


def test_left_and_right_differ_on_purpose(template: TissueTemplate) -> None:
    x = template.space.centres()[..., 0]
    for name, sign in (("superior_longitudinal_fasciculus", 1), ("uncinate_fasciculus", -1)):
        inside = template.labels == NUMBER[name]
        left, right = template.fa[inside & (x < 0)].mean(), template.fa[inside & (x > 0)].mean()
        assert 0.01 < sign * (left - right) / (left + right) * 2 < 0.12


def test_a_kept_scan_gives_the_maps_of_the_same_subject(
    template: TissueTemplate, ready: Derivatives, work: Path, tmp_path: Path
) -> None:
    participant = recruit(SETTINGS)[0]
    path = work / f"simulate-{simulate.recipe_hash(SETTINGS)}" / simulate.TISSUE_TEMPLATE
    settings = dataclasses.replace(SETTINGS, output="dwi")
    simulate.write_one(settings, participant, tmp_path, path)
    stem = tmp_path / participant.id / "dwi" / f"{participant.id}_dwi"
    bvals = np.loadtxt(stem.with_suffix(".bval"))
    bvecs = np.loadtxt(stem.with_suffix(".bvec")).T
    dwi = np.asarray(nib.load(stem.with_name(f"{stem.name}.nii.gz")).dataobj, dtype=np.float32)
    assert dwi.shape == (*SPACE.shape, 63)
    assert json.loads(stem.with_suffix(".json").read_text())["Simulated"] is True
    (mask,) = ready.masks([participant.id])
    np.testing.assert_array_equal(dwi[..., 0] > 0, mask)
    found = tensor.fit(dwi, bvals, bvecs, mask, SETTINGS.max_bvalue)
    fa, md = ready.load([participant.id])[0]
    np.testing.assert_allclose(found.fa, fa, atol=2e-4)
    np.testing.assert_allclose(found.md, md, atol=2e-7)


def test_maps_are_physical_and_named_as_bids_derivatives(ready: Derivatives, bids: Path) -> None:
    labels = [p.id for p in ready.participants]
    assert labels == ["sub-sim0001", "sub-sim0002", "sub-sim5001"]
    values, masks = ready.load(labels), ready.masks(labels)
    assert values[:, 0].max() <= FA.maximum
    assert values[:, 1].max() <= MD.maximum
    assert values.min() >= 0
    assert not values[np.broadcast_to(~masks[:, None], values.shape)].any()
    assert 1500 < masks[0].sum() * SPACE.voxel_ml < 2100
    for label in labels:
        names = {path.name for path in ready.folder(label).iterdir()}
        assert {map_name(label, SPACE, FA), map_name(label, SPACE, MD)} < names
        assert mask_name(label, SPACE) in names
        side = map_name(label, SPACE, FA).replace(".nii.gz", ".json")
        assert json.loads((ready.folder(label) / side).read_text())["Simulated"] is True
    assert not [p for p in bids.rglob("*") if "camcan" in p.name.lower()]
    assert json.loads((bids / "dataset_description.json").read_text())["Simulated"] is True


def test_tissues_have_their_known_diffusion(template: TissueTemplate) -> None:
    person = Person(Condition(30.0, "F"), acquisition.SCANNER_A, (3, 4))
    tissue = simulated.person_tissue(template, SPACE, person, simulated.draw_traits(person))
    fa, md = _measured(tissue, person)
    labels = tissue.labels
    assert np.median(md[tissue.fluid > 0.9]) == pytest.approx(2.85, abs=0.2)
    cortex = (labels == NUMBER["cortex"]) & (tissue.grey.fraction > 0.7)
    assert np.median(md[cortex]) == pytest.approx(0.89, abs=0.06)
    assert fa[cortex].mean() < 0.2
    assert np.median(md[labels == NUMBER["deep_grey_matter"]]) == pytest.approx(0.75, abs=0.05)
    deep_white = tissue.white.fraction > 0.85
    assert np.median(md[deep_white]) == pytest.approx(0.72, abs=0.05)
    assert np.quantile(fa[deep_white], 0.05) < 0.28


def test_the_atlas_names_every_label(ready: Derivatives) -> None:
    atlas = ready.atlas()
    assert atlas is not None
    labels, names = atlas
    assert set(np.unique(labels)) - {0} <= set(names)
    assert {"genu_of_corpus_callosum", "cortex", "deep_grey_matter", "ventricle"} < {
        names[i] for i in np.unique(labels) if i
    }


def test_a_stopped_run_keeps_finished_subjects(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, out = _fresh(work, tmp_path), tmp_path / "bids"
    made: list[str] = []
    true = simulate.write_one

    def stops_at_second(*args: object) -> str:
        if len(made) == 1:
            # A half-written subject must be made again.
            (fresh / next(fresh.iterdir()).name / "sub-sim0002" / "dwi").mkdir(parents=True)
            raise KeyboardInterrupt
        made.append(true(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(simulate, "write_one", stops_at_second)
    pair = dataclasses.replace(SETTINGS, target_subjects=0)
    with pytest.raises(KeyboardInterrupt):
        simulate.simulate(pair, out, fresh, workers=1)
    assert not out.exists()
    assert not list(tmp_path.glob("bids*"))

    def counts(*args: object) -> str:
        made.append(true(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(simulate, "write_one", counts)
    simulate.simulate(pair, out, fresh, workers=1)
    assert made == ["sub-sim0001", "sub-sim0002"]
    opened = Derivatives.open(out / "derivatives" / "simulated")
    assert opened.load([p.id for p in opened.participants]).shape[0] == 2


def test_data_that_are_not_simulated_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(UserError, match="not simulated"):
        simulate.simulate(SETTINGS, tmp_path, tmp_path / "work")
    assert (tmp_path / "sub-01").exists()


def test_a_cohort_needs_a_subject() -> None:
    with pytest.raises(ValueError, match="at least one"):
        dataclasses.replace(SETTINGS, base_subjects=0, target_subjects=0)
