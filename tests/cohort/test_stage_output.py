"""A run that is killed leaves the last good output, or none; never a half one."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from cohort.derivatives import Derivatives, read_participants
from cohort.importer import find_scans
from cohort.split import Manifest
from cohort.stage_output import link_tree, whole_folder, write_whole
from contracts.errors import UserError


def _killed_in_the_middle(out: Path) -> None:
    with whole_folder(out) as folder:
        (folder / "new").write_text("half")
        os._exit(9)


def _stopped_in_the_middle(out: Path) -> None:
    with whole_folder(out) as folder:
        (folder / "a").write_text("half")
        raise KeyboardInterrupt


def _content(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir()}


@pytest.mark.parametrize("before", [None, "good"])
def test_a_kill_leaves_what_was_there_and_the_next_run_goes_through(
    tmp_path: Path, before: str | None
) -> None:
    out = tmp_path / "out"
    if before is not None:
        out.mkdir()
        (out / "old").write_text(before)
    process = multiprocessing.get_context("spawn").Process(
        target=_killed_in_the_middle, args=(out,)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    assert out.exists() == (before is not None)
    assert before is None or _content(out) == {"old": before}
    with whole_folder(out) as folder:
        assert _content(folder) == {}
        (folder / "new").write_text("whole")
    assert _content(out) == {"new": "whole"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with whole_folder(out) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(KeyboardInterrupt):
        _stopped_in_the_middle(out)
    assert _content(out) == {"a": "first"}


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "split.json"
    write_whole(path, "first")

    def stops(self: Path, text: str) -> None:
        with self.open("w") as stream:
            stream.write(text[:2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", stops)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "second")
    assert path.read_text() == "first"


def test_a_linked_folder_is_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    link_tree(tmp_path / "a", tmp_path / "copy")
    assert (tmp_path / "copy" / "b" / "file").samefile(tmp_path / "a" / "b" / "file")


def test_whoever_misses_an_output_is_told_how_to_bring_the_last_one_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"dvc checkout {tmp_path}"):
        Derivatives.open(tmp_path)
    with pytest.raises(UserError, match=f"dvc checkout {tmp_path}"):
        read_participants(tmp_path)
    with pytest.raises(UserError, match=r"dvc checkout .*split\.json"):
        Manifest.read(tmp_path / "split.json")
    with pytest.raises(UserError, match="dvc checkout data/bids"):
        find_scans(tmp_path / "none")
