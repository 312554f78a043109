"""Gains and relative volumes of another group: computed once for all who ask, and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cohort import channels
from contracts.condition import Condition
from contracts.maps import MAPS
from models.prior.group import relative_volumes, with_kept_gain
from models.prior.prior import Prior
from tests.cohort.tiny import tiny_volumes
from tests.models.tiny import template_prior

SUBJECTS = 8
GAIN = np.array([1.1, 0.93, 1], dtype=np.float32)
Base = tuple[Prior, np.ndarray, list[Condition]]


@pytest.fixture(scope="module")
def base() -> Base:
    """A prior, and encoded volumes of a group that differs from its own by a gain."""
    volumes, masks, people = tiny_volumes(SUBJECTS)
    encoded = channels.encode(volumes, masks, MAPS)
    prior = template_prior(encoded, channels.possible_brain(masks), people)
    return prior, encoded * GAIN[:, None, None, None], people


def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, nothing may be fitted or registered."""

    def refuse(*_: object) -> None:
        raise AssertionError("it is kept")

    monkeypatch.setattr(Prior, "with_fitted_gain", refuse)
    monkeypatch.setattr(Prior, "to_relative", refuse)


def test_they_are_those_of_the_prior_and_kept(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, encoded, people = base
    fitted = with_kept_gain(prior, encoded, people, tmp_path)
    expected = prior.with_fitted_gain(encoded, people).site_gain
    np.testing.assert_array_equal(fitted.site_gain, expected)
    relative = relative_volumes(fitted, encoded, people, tmp_path)
    np.testing.assert_array_equal(relative, fitted.to_relative(encoded, people))
    never(monkeypatch)
    again = with_kept_gain(prior, encoded, people, tmp_path)
    np.testing.assert_array_equal(again.site_gain, expected)
    same = relative_volumes(again, encoded, people, tmp_path)
    np.testing.assert_array_equal(same, relative)


@pytest.mark.parametrize("other", ["volumes", "people", "prior"])
def test_others_are_not_mistaken_for_them(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    prior, encoded, people = base
    relative_volumes(prior, encoded[:2], people[:2], tmp_path)
    never(monkeypatch)
    relative_volumes(prior, encoded[:2], people[:2], tmp_path)
    with pytest.raises(AssertionError, match="it is kept"):
        relative_volumes(
            prior.with_gain(GAIN) if other == "prior" else prior,
            encoded[2:4] if other == "volumes" else encoded[:2],
            people[2:4] if other == "people" else people[:2],
            tmp_path,
        )
