"""Requests are checked, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UserError
from contracts.maps import ALL_MAPS
from serving.messages import COUNT_LIMIT, SEED_LIMIT, STEPS_LIMIT, Sample, sample_request

GOOD = {"age": 65, "sex": "F"}


def test_a_request_needs_only_age_and_sex() -> None:
    request = sample_request(GOOD)
    assert (request.dim, request.map, request.steps, request.seeds) == ("3d", "fa", 16, [0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"age": -1},
        {"age": 121},
        {"age": float("nan")},
        {"age": "old"},
        {"sex": "x"},
        {"dim": "4d"},
        {"map": "t1w"},
        {"steps": 0},
        {"steps": STEPS_LIMIT + 1},
        {"steps": 1.5},
        {"count": 0},
        {"count": COUNT_LIMIT + 1},
        {"seed": -1},
        {"seed": SEED_LIMIT + 1},
        {"seed": True},
        {"stepss": 3},
    ],
    ids=str,
)
def test_a_wrong_value_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        sample_request({**GOOD, **wrong})


def test_every_wrong_value_is_named() -> None:
    with pytest.raises(UserError, match=r"age.*steps") as error:
        sample_request({"age": 300, "sex": "F", "steps": 0})
    assert "\n" not in str(error.value)


def test_every_map_can_be_asked_for() -> None:
    assert [sample_request({**GOOD, "map": spec.name}).map for spec in ALL_MAPS] == [
        spec.name for spec in ALL_MAPS
    ]


def test_the_label_tells_requests_apart_and_is_a_bids_label() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"dim": "2d"},
        {"age": 65.5},
        {"sex": "M"},
        {"seed": 9},
        {"count": 2},
    ]
    labels = [sample_request({**GOOD, **change}).label for change in changes]
    assert len(set(labels)) == len(labels)
    assert all(label.removeprefix("sub-").isalnum() for label in labels)


def test_a_sample_is_saved_under_its_own_name_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = Sample(b"bytes", {"Warnings": []}, "own.nii.gz")
    assert sample.save() == Path("own.nii.gz")
    assert sample.save(tmp_path / "new" / "other.nii.gz").read_bytes() == b"bytes"
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "other.nii.gz",
        "own.nii.gz",
    ]
