"""Sites as a condition: conditional mean, network, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort import channels
from contracts.condition import Condition
from contracts.errors import UserError
from contracts.maps import FA, MD
from models.config import Dim
from models.coverage import Coverage
from models.diffusion.denoiser import condition_vector
from models.generator import Generator
from models.generator_config import GeneratorConfig
from tests.cohort.tiny import SPACE, tiny_volumes
from tests.models.tiny import NETWORK, PATH, randomised, template_prior

SITES = ("A", "B", "C")
FACTORS = {"A": 0.8, "B": 1.0, "C": 1.1}


def cohort(n: int = 36) -> tuple[np.ndarray, np.ndarray, list[Condition]]:
    """Encoded volumes of three scanners that differ by a factor, masks, conditions."""
    volumes, masks, people = tiny_volumes(n)
    people = [replace(p, site=SITES[i % 3]) for i, p in enumerate(people)]
    factors = np.array([FACTORS[p.site or ""] for p in people], dtype=np.float32)
    volumes = volumes * factors[:, None, None, None, None]
    return channels.encode(volumes, masks, (FA, MD)), masks, people


def generator_of(dim: Dim) -> Generator:
    encoded, masks, people = cohort()
    prior = template_prior(encoded, channels.possible_brain(masks), people, SITES)
    config = GeneratorConfig(dim, SPACE, ("fa", "md"), NETWORK, PATH, Coverage.of(people))
    torch.manual_seed(0)
    return randomised(Generator(config, prior))


def asked(site: str | None) -> Condition:
    return Condition(50, "F", site)


def test_no_site_is_the_average_of_the_sites() -> None:
    everywhere = [asked(site) for site in SITES]
    encoded, masks, people = cohort()
    prior = template_prior(encoded, channels.possible_brain(masks), people, SITES)
    average = prior.mean(everywhere).mean(axis=0)
    np.testing.assert_allclose(prior.mean([asked(None)])[0], average, atol=1e-5)
    still = np.zeros((3, 4, *prior.mask.shape), dtype=np.float32)
    levels = prior.expected(still, everywhere)[:, :2][..., masks[0]].mean(axis=-1)
    factors = np.array(list(FACTORS.values()))
    np.testing.assert_allclose(levels / levels[1], np.stack([factors] * 2, axis=1), atol=0.02)


def test_the_network_reads_age_sex_and_sites() -> None:
    people = [asked(None), Condition(80, "M")]
    assert condition_vector(people).tolist() == [[0, -0.5], [1.5, 0.5]]
    found = condition_vector([asked("A"), asked("C")], SITES)
    assert found.tolist() == [[0, -0.5, 1, 0], [0, -0.5, -1, -1]]


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_a_site_is_asked_for_kept_and_checked(dim: Dim, tmp_path: Path) -> None:
    generator = generator_of(dim)
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path)
    assert loaded.sites == SITES
    assert loaded.coverage == generator.coverage
    people = [asked(site) for site in (*SITES, None)]
    volumes = loaded.sample(people, [1] * 4, 2)
    np.testing.assert_array_equal(volumes, generator.sample(people, [1] * 4, 2))
    assert all(not np.array_equal(volumes[i], volumes[j]) for i in range(4) for j in range(i))
    with pytest.raises(UserError, match="unknown site 'D': this generator knows the sites A, B, C"):
        generator.sample([asked("D")], [1], 1)
