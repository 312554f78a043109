"""What a generator says of requests far from whom it has seen, and what it keeps of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.condition import Condition
from models.coverage import Coverage
from models.generator import CONFIG_FILE, Generator
from tests.models.tiny import tiny_generator

# A woman per year from 20 to 79, men of 40 to 59 alone.
PEOPLE = [Condition(20.5 + i, "F") for i in range(60)]
PEOPLE += [Condition(40.5 + i, "M") for i in range(20)]
COVERAGE = Coverage.of(PEOPLE)


@pytest.mark.parametrize(
    ("age", "sex", "inside"),
    [
        (20, "F", True),
        (50, "F", True),
        (80, "F", True),
        (19.9, "F", False),
        (80.1, "F", False),
        (50, "M", True),
        (38, "M", True),  # three years off, where there are men
        (36, "M", False),  # fewer than three men within five years
        (25, "M", False),
        (70, "M", False),
    ],
)
def test_requests_outside_are_told(age: float, sex: str, inside: bool) -> None:
    warning = COVERAGE.warning(Condition(age, "F" if sex == "F" else "M"))
    assert (warning is None) == inside
    if warning is not None:
        assert "outside the training coverage" in warning
        assert f"age {age:g}" in warning


def test_near_counts_ten_years_of_one_sex() -> None:
    assert COVERAGE.near(Condition(45, "F")) == pytest.approx(10)
    assert COVERAGE.near(Condition(47.3, "M")) == pytest.approx(10)
    assert COVERAGE.near(Condition(60, "M")) == pytest.approx(5)
    assert COVERAGE.near(Condition(80, "F")) == pytest.approx(5)


def test_what_is_well_covered_warns_for_nobody() -> None:
    first, last = COVERAGE.well_covered
    assert (first, last) == (38, 62)  # the men's ages, and two years beyond
    for age in (first, last):
        assert all(COVERAGE.warning(Condition(age, sex)) is None for sex in ("F", "M"))
    women = Coverage.of(c for c in PEOPLE if c.sex == "F")
    assert women.well_covered == (23, 77)  # of 20 to 80
    assert Coverage().well_covered == (0, 0)


def test_sites_are_covered_one_by_one() -> None:
    people = [replace(c, site="A" if c.age < 50 else "B") for c in PEOPLE]
    coverage = Coverage.of(people)
    assert Coverage.from_json(json.loads(json.dumps(coverage.to_json()))) == coverage
    assert coverage.counts == COVERAGE.counts
    assert coverage.sites["A"] == Coverage.of(c for c in PEOPLE if c.age < 50)
    assert coverage.warning(Condition(30, "F")) is None
    assert coverage.warning(Condition(30, "F", "A")) is None
    assert str(coverage.warning(Condition(30, "F", "B"))).startswith("site B: age 30 is outside")
    assert "no training subjects of site C" in str(coverage.warning(Condition(30, "F", "C")))


def test_counts_are_all_that_is_kept(tmp_path: Path) -> None:
    counts = COVERAGE.to_json()
    assert sum(sum(bins.values()) for bins in counts.values()) == len(PEOPLE)
    assert counts["M"] == {str(low): 5 for low in range(40, 60, 5)}
    assert Coverage.from_json(json.loads(json.dumps(counts))) == COVERAGE
    tiny_generator("3d").save(tmp_path)
    content = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert "ages" not in content
    assert Generator.load(tmp_path).coverage.to_json() == content["coverage"]


def test_the_order_of_subjects_is_forgotten() -> None:
    assert Coverage.of(PEOPLE[::-1]) == COVERAGE
    assert list(Coverage.of(PEOPLE[::-1]).to_json()) == ["F", "M"]


def test_a_generator_that_tells_nothing_covers_nobody(tmp_path: Path) -> None:
    tiny_generator("3d").save(tmp_path)
    path = tmp_path / CONFIG_FILE
    content = json.loads(path.read_text())
    del content["coverage"]
    path.write_text(json.dumps(content))
    assert Generator.load(tmp_path).coverage.warning(Condition(50, "F")) is not None
