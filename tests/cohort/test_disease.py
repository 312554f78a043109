"""The simulated disease: in its tracts, of its size, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cohort import simulate
from cohort.derivatives import Derivatives
from cohort.simulate import SimulateSettings
from cohort.simulation import disease, disease_truth
from cohort.simulation.disease_truth import Effect
from cohort.simulation.tissue import build_tissue_template

SICK = SimulateSettings(
    seed=7,
    resolution_mm=4.0,
    output="maps",
    base_subjects=1,
    target_subjects=10,
    max_bvalue=1300.0,
    disease_effect=1.0,
)
HEALTHY = dataclasses.replace(SICK, disease_effect=0.0)


def made(settings: SimulateSettings, folder: Path) -> Path:
    """The maps of a cohort, from a template that is not matched to published means."""
    work = folder / "work"
    template = work / f"simulate-{simulate.recipe_hash(settings)}" / simulate.TISSUE_TEMPLATE
    build_tissue_template(4.0).save(template)
    simulate.simulate(settings, folder / "bids", work, workers=1)
    return folder / "bids" / "derivatives" / "simulated"


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(SICK, tmp_path_factory.mktemp("sick"))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(HEALTHY, tmp_path_factory.mktemp("healthy"))


@pytest.fixture(scope="module")
def effects(sick: Path) -> dict[tuple[str, str], Effect]:
    return {(e.region, e.map): e for e in disease_truth.read(sick / disease_truth.TABLE)}


def files(root: Path, subject: str) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (root / subject).rglob("*") if p.is_file()}


def test_no_effect_is_the_group_as_it_was(sick: Path, healthy: Path) -> None:
    """Who is healthy has the same bytes whatever the patients have, and there is no table."""
    assert files(sick, "sub-sim0001") == files(healthy, "sub-sim0001")
    assert files(sick, "sub-sim5001") != files(healthy, "sub-sim5001")
    assert not (healthy / disease_truth.TABLE).exists()


def test_the_table_is_the_difference_to_the_same_people_without_it(
    sick: Path, healthy: Path, effects: dict[tuple[str, str], Effect]
) -> None:
    cohorts = Derivatives.open(sick), Derivatives.open(healthy)
    ids = [p.id for p in cohorts[0].participants if p.group == "target"]
    labels, names = cohorts[0].atlas() or pytest.fail("no atlas")
    number = {name: i for i, name in names.items()}["splenium_of_corpus_callosum"]
    means = [
        np.mean([v[labels == number][v[labels == number] > 0].mean() for v in c.load(ids)[:, 1]])
        for c in cohorts
    ]
    effect = effects["splenium_of_corpus_callosum", "md"]
    assert effect.difference == pytest.approx(means[0] - means[1], rel=0.02)


def test_fa_falls_and_md_rises_in_the_diseased_tracts(
    effects: dict[tuple[str, str], Effect],
) -> None:
    for tract in disease.TRACTS:
        if (tract, "fa") in effects:  # the thinnest have no voxel at 4 mm
            assert effects[tract, "fa"].d < -0.4, tract
            assert effects[tract, "md"].d > 0.4, tract
    assert ("splenium_of_corpus_callosum", "fa") in effects


def test_far_tracts_stay(effects: dict[tuple[str, str], Effect]) -> None:
    for tract in ("corticospinal_tract", "middle_cerebellar_peduncle", "external_capsule"):
        for name in ("fa", "md"):
            assert abs(effects[tract, name].d) < 0.3, tract


def test_severity_differs_and_is_the_effect_on_average() -> None:
    drawn = [disease.severity(1.5, np.random.default_rng(i)) for i in range(2000)]
    assert np.mean(drawn) == pytest.approx(1.5, rel=0.03)
    assert 0.4 < np.std(drawn) < 0.6
    assert min(drawn) > 0
    assert disease.severity(0.0, np.random.default_rng(0)) == 0


def test_an_effect_that_makes_no_sense_is_told() -> None:
    with pytest.raises(ValueError, match="disease_effect from 0 to 2"):
        dataclasses.replace(SICK, disease_effect=-1.0)
