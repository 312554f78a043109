"""The regression on age, sex and site: known coefficients come back."""

from __future__ import annotations

import numpy as np
import pytest

from cohort.regression import contrasts, design, regress
from contracts.condition import Condition
from contracts.errors import UserError

SITES = ("A", "B", "C")


def asked(site: str | None) -> Condition:
    return Condition(50, "F", site)


def cohort(sites: tuple[str | None, ...] = SITES) -> list[Condition]:
    """Sixty women and men in turns, as the sites are."""
    ages = np.random.default_rng(0).uniform(20, 80, 60)
    return [
        Condition(float(age), "M" if i % 2 else "F", sites[i % len(sites)])
        for i, age in enumerate(ages)
    ]


def test_known_coefficients_come_back() -> None:
    people, rng = cohort(), np.random.default_rng(1)
    truth = rng.normal(size=(6, 2, 3)).astype(np.float32)
    values = np.tensordot(design(people, SITES), truth, axes=1).astype(np.float32)
    np.testing.assert_allclose(regress(values, people, SITES), truth, atol=1e-5)


def test_residuals_are_orthogonal_to_the_design() -> None:
    people = cohort((None,))
    values = np.random.default_rng(2).normal(size=(60, 5)).astype(np.float32)
    rows = design(people)
    left = values - rows @ regress(values, people)
    np.testing.assert_allclose(rows.T @ left, 0, atol=1e-4)


def test_women_alone_have_a_fit_too() -> None:
    women = [Condition(float(age), "F") for age in range(20, 80)]
    values = (0.01 * np.arange(60, dtype=np.float32) + 0.5)[:, None]
    fitted = design(women) @ regress(values, women)
    np.testing.assert_allclose(fitted, values, atol=1e-5)


def test_no_site_is_the_average_of_the_sites() -> None:
    rows = contrasts([asked(site) for site in SITES], SITES)
    assert np.linalg.matrix_rank(np.column_stack([np.ones(3), rows])) == 3
    np.testing.assert_array_equal(rows.sum(axis=0), 0)
    np.testing.assert_array_equal(contrasts([asked(None)], SITES), [[0, 0]])


def test_without_sites_there_are_four_columns() -> None:
    people = [asked(None), Condition(80, "M")]
    np.testing.assert_allclose(design(people), [[1, 0, 0, -0.5], [1, 1.5, 2.25, 0.5]])


@pytest.mark.parametrize(
    ("known", "told"), [(SITES, "knows the sites A, B, C"), ((), "it was not told sites")]
)
def test_an_unknown_site_is_told(known: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=f"unknown site 'D': this generator .*{told}"):
        contrasts([asked("D")], known)
