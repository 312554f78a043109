"""The null token and guidance: what they know, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.condition import Condition
from contracts.errors import UserError
from models.config import Dim
from models.diffusion.denoiser import Estimate, condition_vector
from models.generator import Generator
from tests.models.priors import expected_of, noise
from tests.models.tiny import NETWORK, tiny_generator

PEOPLE = [Condition(20, "F"), Condition(80, "M")]


@pytest.fixture(scope="module", params=["2d", "3d"])
def generator(request: pytest.FixtureRequest) -> Generator:
    return tiny_generator(request.param, drop_condition=0.1)


def estimates(generator: Generator, withheld: list[bool] | None) -> Estimate:
    """Of one noisy volume, and one brain as it is expected, for two people."""
    noisy, expected = (part.repeat(2, 1, 1, 1, 1) for part in (noise(1), expected_of(1)))
    told = None if withheld is None else torch.tensor(withheld)
    with torch.no_grad():
        estimate: Estimate = generator.denoiser(
            noisy,
            torch.tensor([0.6, 0.6]),
            condition_vector(PEOPLE),
            expected,
            withheld=told,
        )
    return estimate


def test_the_null_branch_knows_nothing_of_the_condition(generator: Generator) -> None:
    null = estimates(generator, [True, True]).clean
    assert torch.equal(null[0], null[1])
    told = estimates(generator, None).clean
    assert not torch.allclose(told[0], told[1], atol=1e-3)
    assert torch.equal(estimates(generator, [False, False]).clean, told)
    mixed = estimates(generator, [False, True]).clean
    torch.testing.assert_close(mixed[0], told[0])
    torch.testing.assert_close(mixed[1], null[1])


def test_guidance_is_linear_in_the_estimate_and_leaves_the_closed_form(
    generator: Generator,
) -> None:
    told, null = estimates(generator, None), estimates(generator, [True, True])
    for guidance in (0.0, 1.0, 2.5):
        found = told.guided(null, guidance)
        expected = (1 - guidance) * null.clean + guidance * told.clean
        torch.testing.assert_close(found.clean, expected, atol=1e-5, rtol=1e-4)
        assert torch.equal(found.gaussian_mean, told.gaussian_mean)


def test_guidance_one_is_plain_and_another_is_another(generator: Generator) -> None:
    calls: list[int] = []
    hook = generator.denoiser.register_forward_hook(lambda *_: calls.append(1))
    plain = generator.sample(PEOPLE, [1, 2], 3)
    np.testing.assert_array_equal(generator.sample(PEOPLE, [1, 2], 3, guidance=1.0), plain)
    assert len(calls) == 6
    strong = generator.sample(PEOPLE, [1, 2], 3, guidance=2.0)
    assert len(calls) == 12
    hook.remove()
    assert not np.array_equal(strong, plain)
    alone = generator.sample(PEOPLE[1:], [2], 3, guidance=2.0)
    np.testing.assert_array_equal(alone[0], strong[1])


@pytest.mark.parametrize("dim", ["2d", "3d"])
def test_a_generator_that_never_withheld_cannot_be_guided(dim: Dim) -> None:
    with pytest.raises(UserError, match=r"loop\.drop_condition"):
        tiny_generator(dim).sample(PEOPLE, [1, 2], 1, guidance=2.0)


def test_the_null_token_is_a_vector_of_the_embedding(generator: Generator) -> None:
    def count(one: Generator) -> int:
        return sum(p.numel() for p in one.denoiser.network.parameters())

    assert count(generator) - count(tiny_generator(generator.dim)) == 4 * NETWORK.channels[0]


def test_saved_with_its_null_token(generator: Generator, tmp_path: Path) -> None:
    generator.save(tmp_path)
    loaded = Generator.load(tmp_path)
    assert loaded.config == generator.config
    np.testing.assert_array_equal(
        loaded.sample(PEOPLE, [1, 2], 2, guidance=3.0),
        generator.sample(PEOPLE, [1, 2], 2, guidance=3.0),
    )
