"""A cohort relative to its template: made once, by whoever comes first, and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cohort import channels
from cohort.group_template import GroupTemplate
from contracts.condition import Condition
from contracts.maps import MAPS
from models.prior.prior import Prior
from models.prior.template_transform import TemplateTransform
from tests.cohort.tiny import tiny_volumes
from training.relative import RelativeSubjects

SUBJECTS = 8
Cohort = tuple[np.ndarray, list[Condition], GroupTemplate, np.ndarray]


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    """Encoded volumes, conditions, their template and displacements."""
    volumes, masks, people = tiny_volumes(SUBJECTS)
    encoded = channels.encode(volumes, masks, MAPS)
    template, displacements = GroupTemplate.fit(encoded, channels.possible_brain(masks), people)
    return encoded, people, template, np.array(displacements)


def of(cohort: Cohort, folder: Path, digest: str = "digest") -> RelativeSubjects:
    encoded, people, template, displacements = cohort
    return RelativeSubjects.of(
        encoded, people, template, lambda i: displacements[i], folder, digest
    )


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one whenever a transform is fitted."""
    made: list[int] = []
    fit = TemplateTransform.fit

    def counted(*given: object) -> TemplateTransform:
        made.append(1)
        return fit(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(TemplateTransform, "fit", counted)
    return made


def test_two_who_ask_at_once_get_the_same_and_it_is_made_once(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counting(monkeypatch)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: of(cohort, tmp_path), range(2))
    assert len(made) == 1
    np.testing.assert_array_equal(one.relative, other.relative)
    for name, expected in one.transform.arrays().items():
        np.testing.assert_array_equal(other.transform.arrays()[name], expected, err_msg=name)
    of(cohort, tmp_path, "another")
    assert len(made) == 2


def test_what_is_kept_is_what_the_transform_finds(cohort: Cohort, tmp_path: Path) -> None:
    encoded, people, template, _ = cohort
    found = of(cohort, tmp_path)
    assert isinstance(found.relative, np.memmap)
    np.testing.assert_array_equal(found.transform.register(encoded, people), found.relative)
    np.testing.assert_array_equal(found.possible_brain, template.mask)
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"transform.safetensors", "relative.npy", "relative.npy.lock", "lock"} | {
        name for name in left if name == "displacements.npy.lock"
    }


def test_a_call_that_was_stopped_goes_on(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counting(monkeypatch)
    whole = of(cohort, tmp_path / "whole")
    relative, seen = TemplateTransform.to_relative, list[int]()

    def stops(self: TemplateTransform, *given: np.ndarray) -> np.ndarray:
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return relative(self, *given)

    monkeypatch.setattr(TemplateTransform, "to_relative", stops)
    with pytest.raises(KeyboardInterrupt):
        of(cohort, tmp_path / "stopped")
    again = of(cohort, tmp_path / "stopped")
    assert len(made) == 2  # of the whole and of the stopped one: not fitted anew
    assert len(seen) == SUBJECTS + 1
    np.testing.assert_array_equal(again.relative, whole.relative)


def test_residuals_are_those_of_the_prior(cohort: Cohort, tmp_path: Path) -> None:
    encoded, people, _, _ = cohort
    seen = of(cohort, tmp_path / "work")
    for transform in (seen.transform, None):
        volumes = encoded if transform is None else seen.relative
        prior = Prior.fit(volumes, seen.possible_brain, people, transform=transform)
        found = seen.residuals(prior, people, tmp_path / str(transform is None))
        expected = prior.residual(encoded, people)
        np.testing.assert_allclose(found.residual, expected, atol=1e-5)
