"""A cohort with AD and RD, from its simulation to the service's files."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohort import group_template
from cohort.derivatives import Derivatives
from cohort.derive import DeriveSettings, derive
from cohort.simulate import TISSUE_TEMPLATE, SimulateSettings, recipe_hash, simulate
from cohort.simulation.tissue import build_tissue_template
from cohort.split import SplitSettings, split
from cohort.subjects import load
from cohort.template import make_group_template
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import ALL_MAPS, map_spec
from models.config import DiffusionConfig, NetworkConfig
from models.generator import Generator
from training.settings import LoopSettings, TrainSettings
from training.train import train

FOUR = ("fa", "md", "ad", "rd")
TINY = TrainSettings(
    NetworkConfig(channels=(16, 16), attention=False),
    DiffusionConfig(),
    LoopSettings(steps=2, batch=2),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, store_template: Path) -> Path:
    """A project with ten subjects, split, and a 3D generator."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        shutil.copy(store_template, root / "mlflow.db")  # the template stays empty
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        data = Path("data")
        settings = SimulateSettings(3, 4.0, "maps", 10, 0, 1300.0, FOUR)
        # Not calibrated to published means, which takes longer than all the rest.
        template = data / f"work/simulate-{recipe_hash(settings)}/{TISSUE_TEMPLATE}"
        build_tissue_template(4.0).save(template)
        simulate(settings, data / "bids", data / "work", workers=1)
        source = str(data / "bids/derivatives/simulated")
        derive(
            DeriveSettings(source, 4, 1300, FOUR), data / "derivatives", data / "work", workers=1
        )
        people = Derivatives.open(data / "derivatives").participants
        manifest = split(people, SplitSettings(seed=0, val=0.1, test=0.1), {})
        (data / "split.json").write_text(json.dumps(manifest.to_json()))
        patch.setattr(group_template, "_ROUNDS", 1)  # nothing here needs a sharp template
        make_group_template()
        train("3d", TINY)
    return root


@pytest.fixture(scope="module")
def generator(project: Path) -> Generator:
    return Generator.load(project / "data/models/3d/base")


def test_the_cohort_has_four_maps_that_agree(project: Path) -> None:
    cohort = Derivatives.open(project / "data/derivatives")
    assert cohort.maps == ALL_MAPS
    maps = cohort.load([p.id for p in cohort.participants], cohort.maps)
    assert_one_tensor(maps)
    white = maps[:, 0] > 0.6
    ad, rd = maps[:, 2][white].mean(), maps[:, 3][white].mean()
    assert 1.1e-3 < ad < 1.6e-3
    assert 0.2e-3 < rd < 0.6e-3


def assert_one_tensor(maps: np.ndarray) -> None:
    """FA, MD, AD and RD (n, 4, X, Y, Z) belong to the same eigenvalues."""
    fa, md, ad, rd = np.moveaxis(maps, 1, 0)[:, maps[:, 1] > 0].astype(np.float64)
    assert (ad >= md * (1 - 1e-6)).all()
    assert (md * (1 + 1e-6) >= rd).all()
    np.testing.assert_allclose(ad + 2 * rd, 3 * md, atol=2e-9)
    # RD is the mean of l2 and l3; the sum of squares that FA and MD fix sets them apart.
    squares = 3 * md**2 / (1 - 2 * fa**2 / 3)
    half = np.sqrt(np.maximum(squares - ad**2 - 2 * rd**2, 0) / 2)
    values = np.stack([ad, rd + half, rd - half])
    assert values.min() > -5e-6
    apart = 1.5 * ((values - md) ** 2).sum(axis=0) / (values**2).sum(axis=0)
    np.testing.assert_allclose(np.sqrt(apart), fa, atol=1e-3)


def test_samples_have_four_maps_that_agree(generator: Generator) -> None:
    assert generator.maps == ALL_MAPS
    assert len(generator.prior.site_gain) == 4
    volumes = generator.sample([Condition(30, "F"), Condition(80, "M")], [1, 2], steps=2)
    assert volumes.shape == (2, 4, *generator.space.shape)
    assert_one_tensor(volumes)
    assert volumes[:, 2].max() > volumes[:, 1].max()


def test_the_service_gives_each_map(project: Path, generator: Generator) -> None:
    from serving.messages import sample_request
    from serving.sampling import describe, folder_model, sample

    model = folder_model(project / "data/models/3d/base")
    assert describe(model)["maps"] == list(FOUR)
    asked = {"age": 40, "sex": "F", "seed": 5, "steps": 2}
    request = sample_request(asked)
    (expected,) = generator.sample([request.condition], request.seeds, request.steps)
    for k, name in enumerate(FOUR):
        made = sample(model, sample_request({**asked, "map": name}))
        image = nib.Nifti1Image.from_bytes(gzip.decompress(made.volume))
        scale = map_spec(name).scale
        np.testing.assert_allclose(np.asarray(image.dataobj), expected[k], atol=1e-5 * scale)
        assert made.recipe["Parameter"] == name.upper()
        assert f"param-{name}_" in made.name


def test_the_judge_reads_fa_and_md(project: Path, generator: Generator) -> None:
    from evaluation.held_out import HeldOutSubjects
    from evaluation.membership import losses
    from evaluation.regional_means import RegionalMeans
    from evaluation.volume_set import VolumeSet

    known = load(project / "data/derivatives", project / "data/split.json", "base", "train")
    cohort = VolumeSet(known.volumes, known.conditions)
    assert losses(generator, cohort.take([0, 1]), project / "data/work").shape == (2,)
    np.testing.assert_array_equal(cohort.fa_and_md.volumes, known.volumes[:, :2])
    labels = np.ones(known.space.shape, dtype=np.int32)
    regions = RegionalMeans.of(labels, known.volumes, known.conditions)
    people = known.volumes, known.conditions
    unseen = HeldOutSubjects.of(regions, known.volumes, *people, known.space)
    found = unseen.score(generator, samples=2, steps=1)
    assert np.isfinite(found.regional_distance)


def test_a_generator_of_two_maps_refuses_a_cohort_of_four(project: Path) -> None:
    from tests.models.tiny import tiny_generator

    cohort = Derivatives.open(project / "data/derivatives")
    ids = [cohort.participants[0].id]
    with pytest.raises(UserError, match=r"differ in derive\.maps"):
        tiny_generator("3d").encode(cohort.load(ids, cohort.maps), cohort.masks(ids))


def test_a_generator_of_two_maps_says_that_it_makes_no_ad(tmp_path: Path) -> None:
    from serving.messages import sample_request
    from serving.sampling import folder_model, sample
    from tests.models.tiny import tiny_generator

    tiny_generator("3d").save(tmp_path)
    with pytest.raises(UserError, match="makes fa, md, not ad"):
        sample(folder_model(tmp_path), sample_request({"age": 40, "sex": "F", "map": "ad"}))
