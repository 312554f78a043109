"""The command line gives the bytes of the service."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from models.config import Dim
from registry.champion import Fetched
from serving.sample import main

ASKED = ["--dim", "3d", "--age", "65", "--sex", "F", "--seed", "1", "--steps", "2", "--map", "fa"]


def run(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_champion_is_sampled(champions: dict[Dim, Fetched], tmp_path: Path) -> None:
    output = tmp_path / "new" / "fa.nii.gz"
    code, said, _ = run(*ASKED, "--output", output)
    assert (code, said.strip()) == (0, str(output))
    named = tmp_path / "named.nii.gz"
    assert run(*ASKED, "--output", named, "--model", champions["3d"].folder)[0] == 0
    # The name of the model is part of the header.
    assert named.read_bytes() != output.read_bytes()
    code, said, _ = run("--replay", output)
    assert code == 0
    assert "the same bits" in said


def test_the_default_name_tells_the_request(
    champions: dict[Dim, Fetched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(*ASKED)
    (made,) = tmp_path.iterdir()
    assert made.name == "sub-synth3dage65sexFseed1_space-tiny_model-tensor_param-fa_dwimap.nii.gz"


def test_a_warning_goes_to_stderr(champions: dict[Dim, Fetched], tmp_path: Path) -> None:
    arguments = ["--age", "90", "--sex", "F", "--steps", "1", "--output", str(tmp_path / "old")]
    code, said, told = run(*arguments)
    assert code == 0
    assert "outside the training coverage" in told
    assert "outside" not in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--age", "65"], "sex"),
        (["--age", "165", "--sex", "F"], "age"),
        (["--age", "65", "--sex", "F", "--dim", "4d"], "dim"),
        (["--age", "65", "--sex", "F", "--model", "nowhere"], "no generator in nowhere"),
        (["--replay", "missing.nii.gz"], "missing.nii.gz"),
        (["--replay", "missing.nii.gz", "--age", "3"], "drop --age"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], expected: str) -> None:
    code, said, told = run(*arguments)
    assert (code, said) == (2, "")
    assert told.startswith("error: ")
    assert expected in told
    assert told.count("\n") == 1


def test_no_champion_says_how_to_get_one(champions: dict[Dim, Fetched]) -> None:
    del champions["3d"]
    code, _, told = run(*ASKED)
    assert code == 2
    assert "dvc repro" in told
