"""Gains and displacements of another group: computed once for all who ask, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts.condition import Condition
from models.prior.group import displacements, with_kept_gain
from models.prior.prior import Prior
from tests.models.bent import bent

SUBJECTS = 4
GAIN = np.array([1.1, 0.93, 1], dtype=np.float32)
Group = tuple[Prior, np.ndarray, list[Condition]]


@pytest.fixture(scope="module")
def group() -> Group:
    """A prior, and encoded volumes of a group that differs from its own by a gain."""
    prior, encoded, _, _, people = bent()
    return prior, encoded[:SUBJECTS] * GAIN[:, None, None, None], people[:SUBJECTS]


def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, nothing may be fitted or registered."""

    def refuse(*_: object) -> None:
        raise AssertionError("it is kept")

    monkeypatch.setattr(Prior, "with_fitted_gain", refuse)
    monkeypatch.setattr(Prior, "register", refuse)


def test_they_are_those_of_the_prior_and_kept(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, encoded, people = group
    fitted = with_kept_gain(prior, encoded, people, tmp_path)
    expected = prior.with_fitted_gain(encoded, people).site_gain
    np.testing.assert_array_equal(fitted.site_gain, expected)
    found = displacements(fitted, encoded, people, tmp_path)
    assert found.shape == (SUBJECTS, 3, *prior.mask.shape)
    for u, volume, who in zip(found, encoded, people, strict=True):
        np.testing.assert_array_equal(u, fitted.register(volume, who))
    never(monkeypatch)
    again = with_kept_gain(prior, encoded, people, tmp_path)
    np.testing.assert_array_equal(again.site_gain, expected)
    np.testing.assert_array_equal(displacements(again, encoded, people, tmp_path), found)


def test_the_base_s_own_subjects_are_found_where_the_template_had_them(tmp_path: Path) -> None:
    prior, encoded, known, _, people = bent()
    found = displacements(prior, encoded[:2], people[:2], tmp_path)
    np.testing.assert_array_equal(found, known[:2])


@pytest.mark.parametrize("other", ["volumes", "people", "prior"])
def test_others_are_not_mistaken_for_them(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    prior, encoded, people = group
    displacements(prior, encoded[:2], people[:2], tmp_path)
    never(monkeypatch)
    displacements(prior, encoded[:2], people[:2], tmp_path)
    with pytest.raises(AssertionError, match="it is kept"):
        displacements(
            prior.with_gain(GAIN) if other == "prior" else prior,
            encoded[2:4] if other == "volumes" else encoded[:2],
            people[2:4] if other == "people" else people[:2],
            tmp_path,
        )
