"""A synthetic cohort opens as derivatives, holds the bytes of the service, and goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cohort.derivatives import Derivatives
from evaluation.volume_set import read_folder
from models.config import Dim
from registry.champion import Fetched
from serving.cohort import main, spread
from serving.sample import main as sample

STEPS = ("--steps", "2", "--seed", "5")


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_it_opens_as_derivatives_and_as_a_folder_to_audit(
    champions: dict[Dim, Fetched], tmp_path: Path
) -> None:
    out = tmp_path / "synthetic"
    code, said, _ = run("--count", "3", *STEPS, "--output", out)
    assert (code, said.startswith("python -m evaluation audit")) == (0, True)
    derivatives = Derivatives.open(out)
    ids = [p.id for p in derivatives.participants]
    assert ids == ["sub-synth0001", "sub-synth0002", "sub-synth0003"]
    volumes, masks = derivatives.load(ids), derivatives.masks(ids)
    np.testing.assert_array_equal(masks, (volumes > 0).any(axis=1))
    cohort, space = read_folder(out)
    np.testing.assert_array_equal(cohort.volumes, volumes)
    assert space.shape == derivatives.space.shape
    assert json.loads((out / "dataset_description.json").read_text())["Simulated"] is True


def test_each_map_is_that_of_the_service(champions: dict[Dim, Fetched], tmp_path: Path) -> None:
    table = tmp_path / "asked.tsv"
    table.write_text("participant_id\tage\tsex\nA1\t65\tF\nsub-B2\t30.5\tM\n")
    out = tmp_path / "synthetic"
    assert run("--people", table, *STEPS, "--output", out)[0] == 0
    alone = tmp_path / "alone.nii.gz"
    asked = ["--age", "30.5", "--sex", "M", "--seed", "6", "--steps", "2", "--map", "md"]
    assert CliRunner().invoke(sample, [*asked, "--output", str(alone)]).exit_code == 0
    (made,) = (out / "sub-B2" / "dwi").glob("*param-md*.nii.gz")
    assert made.read_bytes() == alone.read_bytes()


def test_what_is_there_stays_and_what_is_cut_short_is_made_again(
    champions: dict[Dim, Fetched], tmp_path: Path
) -> None:
    out = tmp_path / "synthetic"
    run("--count", "2", *STEPS, "--output", out)
    first, second = sorted(out.glob("sub-*/dwi/*param-fa*.nii.gz"))
    content = second.read_bytes()
    stamp = first.stat().st_mtime_ns
    second.write_bytes(b"cut")
    second.with_name(second.name.replace(".nii.gz", ".json")).unlink()
    assert run("--count", "2", *STEPS, "--output", out)[0] == 0
    assert first.stat().st_mtime_ns == stamp
    assert second.read_bytes() == content
    code, _, told = run("--count", "2", "--steps", "3", "--seed", "5", "--output", out)
    assert code == 2
    assert "name an empty folder" in told


def test_ages_are_ages_trained_on(champions: dict[Dim, Fetched], tmp_path: Path) -> None:
    out = tmp_path / "synthetic"
    code, _, told = run("--count", "2", "--steps", "1", "--output", out)
    assert (code, "warning" in told) == (0, False)


def test_an_unknown_site_is_told(champions: dict[Dim, Fetched], tmp_path: Path) -> None:
    code, _, told = run("--count", "1", "--site", "Mars", "--output", tmp_path / "synthetic")
    assert code == 2
    assert "unknown site 'Mars'" in told


def test_ages_fill_the_range_and_both_sexes_are_there() -> None:
    people = spread(4, (20, 80))
    assert [p.age for p in people] == [27.5, 42.5, 57.5, 72.5]
    assert {p.sex for p in people} == {"F", "M"}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("participant_id\tage\na\t3\n", "line 2: expected participant_id"),
        ("participant_id\tage\tsex\na\told\tF\n", "line 2: expected participant_id"),
        ("participant_id\tage\tsex\na b\t30\tF\n", "letters and digits"),
        ("participant_id\tage\tsex\na\t30\tF\na\t31\tF\n", "line 3: expected an id"),
        ("participant_id\tage\tsex\n", "no rows"),
    ],
)
def test_a_wrong_table_is_told(
    table: str, expected: str, champions: dict[Dim, Fetched], tmp_path: Path
) -> None:
    path = tmp_path / "asked.tsv"
    path.write_text(table)
    code, _, told = run("--people", path, "--output", tmp_path / "out")
    assert code == 2
    assert expected in told
    assert not (tmp_path / "out").exists()


def test_one_of_count_and_people(champions: dict[Dim, Fetched], tmp_path: Path) -> None:
    code, _, told = run("--output", tmp_path / "out")
    assert code == 2
    assert "either --count or --people" in told
