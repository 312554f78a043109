"""The group template: what brains that differ in shape have in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cohort import channels
from cohort.group_template import GroupTemplate
from cohort.interpolation import displaced
from cohort.template_estimator import TemplateEstimator
from contracts.condition import Condition
from contracts.maps import MAPS
from tests.cohort.tiny import bent_brains

COUNT = 32
Encoded = tuple[np.ndarray, np.ndarray, list[Condition]]


@pytest.fixture(scope="module")
def cohort() -> Encoded:
    """Encoded volumes, the voxels that a brain may reach, and conditions."""
    return encoded(COUNT)


def encoded(count: int, seed: int = 0) -> Encoded:
    volumes, masks, conditions = bent_brains(count, seed)
    return channels.encode(volumes, masks, MAPS), channels.possible_brain(masks), conditions


@pytest.fixture(scope="module")
def fitted(cohort: Encoded) -> tuple[GroupTemplate, np.ndarray]:
    template, displacements = GroupTemplate.fit(*cohort)
    return template, np.array(displacements)


def test_displacements_explain_what_bent_brains_differ_in(
    cohort: Encoded, fitted: tuple[GroupTemplate, np.ndarray]
) -> None:
    template, _ = fitted
    new, _, conditions = encoded(8, seed=5)  # whom the template has not seen
    inside = template.on_grid()[-1] > 0.5
    left = []
    for one, who in zip(new, conditions, strict=True):
        u = torch.from_numpy(template.displacement(one, who))
        left.append(one - displaced(torch.from_numpy(template.image), u).numpy())
    without = new - cohort[0].mean(axis=0)
    for k in (0, 1):
        after, before = (np.square(a[:, k][:, inside]).mean() for a in (np.stack(left), without))
        assert after < 0.3 * before


def test_displacements_of_the_fit_are_those_of_the_template(
    cohort: Encoded, fitted: tuple[GroupTemplate, np.ndarray]
) -> None:
    volumes, _, conditions = cohort
    template, displacements = fitted
    assert displacements.shape == (COUNT, 3, *volumes.shape[2:])
    for i in (0, 17):
        found = template.displacement(volumes[i], conditions[i])
        np.testing.assert_array_equal(found, displacements[i])


def test_the_template_is_in_the_middle_of_its_subjects(
    fitted: tuple[GroupTemplate, np.ndarray],
) -> None:
    template, displacements = fitted
    inside = template.on_grid()[-1] > 0.2
    middle = displacements.mean(axis=0)[:, inside]
    assert np.abs(middle).mean() < 0.25 * np.abs(displacements[:, :, inside]).mean()


def test_effects_of_age_and_sex_come_back() -> None:
    volumes, mask, conditions = encoded(COUNT)
    age = np.array([(c.age - 50) / 20 for c in conditions], dtype=np.float32)
    male = np.array([0.5 if c.sex == "M" else -0.5 for c in conditions], dtype=np.float32)
    volumes[:, 0] += (0.05 * age)[:, None, None, None]
    volumes[:, 1] -= (0.03 * male)[:, None, None, None]
    template, _ = GroupTemplate.fit(volumes, mask, conditions)
    inside = template.on_grid()[-1] > 0.3
    assert template.effects[1, 0][inside].mean() == pytest.approx(0.05, rel=0.1)
    assert template.effects[3, 1][inside].mean() == pytest.approx(-0.03, rel=0.15)


def test_sites_are_not_told_apart(
    cohort: Encoded, fitted: tuple[GroupTemplate, np.ndarray]
) -> None:
    volumes, _, conditions = cohort
    who = conditions[3]
    elsewhere = fitted[0].displacement(volumes[3], Condition(who.age, who.sex, "elsewhere"))
    np.testing.assert_array_equal(elsewhere, fitted[1][3])


def test_the_boundary_alone_moves_the_template(
    cohort: Encoded, fitted: tuple[GroupTemplate, np.ndarray]
) -> None:
    volumes, _, conditions = cohort
    template, displacements = fitted
    blank = np.zeros_like(volumes[0])
    blank[-1] = volumes[0, -1]
    told, again = (template.displacement(v, conditions[0], True) for v in (volumes[0], blank))
    np.testing.assert_array_equal(told, again)
    assert told.any()
    assert not np.array_equal(told, displacements[0])
    distance = torch.from_numpy(template.image[-1:])
    near = np.abs(volumes[0, -1]) < 0.4
    left = volumes[0, -1] - displaced(distance, torch.from_numpy(told)).numpy()[0]
    still = volumes[0, -1] - template.on_grid()[-1]
    assert np.square(left[near]).mean() < 0.3 * np.square(still[near]).mean()


def test_a_stopped_fit_goes_on(
    cohort: Encoded,
    fitted: tuple[GroupTemplate, np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates: list[int] = []
    update = TemplateEstimator.update_template

    def stopping(self: TemplateEstimator, *given: object) -> None:
        updates.append(1)
        if len(updates) == 6:  # the second of the third round
            raise KeyboardInterrupt
        update(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(TemplateEstimator, "update_template", stopping)
    with pytest.raises(KeyboardInterrupt):
        GroupTemplate.fit(*cohort, work=tmp_path)
    template, displacements = GroupTemplate.fit(*cohort, work=tmp_path)
    assert len(updates) == 6 + 4  # rounds three and four, not one and two
    np.testing.assert_array_equal(displacements, fitted[1])
    for name, expected in fitted[0].arrays().items():
        np.testing.assert_array_equal(template.arrays()[name], expected, err_msg=name)


def test_arrays_make_the_same_template(fitted: tuple[GroupTemplate, np.ndarray]) -> None:
    again = GroupTemplate.from_arrays(fitted[0].arrays())
    assert again.sigma == fitted[0].sigma
    for name, expected in fitted[0].arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], expected)
