"""Processes that work together: joined, restarted when one is lost, heard when one fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.errors import UserError
from services.compute.group import together
from tests.services.members import complains, dies_once


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    assert together(lambda path: (path, os.getpid()), tmp_path, 1) == (tmp_path, os.getpid())


def test_a_lost_process_costs_one_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert together(dies_once, tmp_path, 2) == (1, 2)
    assert "starting all processes again" in capsys.readouterr().err


def test_the_reason_of_one_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lower learning_rate"):
        together(complains, tmp_path, 2)
