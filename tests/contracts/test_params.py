"""params.yaml: right values are read, wrong ones are named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from contracts.errors import UserError
from contracts.params import load


@dataclass(frozen=True)
class Inner:
    rate: float
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    steps: int
    kind: Literal["a", "b"]
    inner: Inner
    name: str | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


GOOD = "stage:\n  steps: 3\n  kind: a\n  inner: {rate: 1e-4, sizes: [4, 5]}\n"


def read(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load(Outer, "stage", path)


def test_values_arrive_typed_and_1e_4_is_a_number(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found == Outer(3, "a", Inner(1e-4, (4, 5)))
    assert isinstance(found.inner.rate, float)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps", "stesp", r"unknown key 'stage.stesp'; did you mean 'steps'\?"),
        ("  steps: 3\n", "", "'stage.steps' is missing"),
        ("steps: 3", "steps: 3.5", "stage.steps: expected a whole number, found 3.5"),
        ("steps: 3", "steps: true", "stage.steps: expected a whole number, found True"),
        (
            "rate: 1e-4",
            "rate: '1e-4'",
            r"stage.inner.rate: expected a number, found '1e-4' \(text\)",
        ),
        ("kind: a", "kind: c", "stage.kind: expected one of a, b, found 'c'"),
        ("[4, 5]", "[4, x]", r"stage.inner.sizes\[1\]: expected a whole number"),
        ("steps: 3", "steps: 0", "stage: steps must be at least 1, got 0"),
        ("stage:", "stag:", "no section 'stage'; found stag"),
        ("stage:", "stage: [", "is not valid YAML"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(error.value)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run from the project's root"):
        load(Outer, "stage", tmp_path / "params.yaml")
