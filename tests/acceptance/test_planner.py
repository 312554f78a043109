"""What the planner tells of memory beside what processes take."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks import memory, result

pytestmark = pytest.mark.acceptance


@pytest.mark.parametrize(
    "row",
    ["2d,4,full,0", "2d,4,lora,1", "2d,4,difffit,1", "3d,4,full,0", "3d,4,full,1", "3d,4,svdiff,1"],
)
def test_the_peak_is_told_within_15_percent(row: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--row", row],
        cwd=result.ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **memory._ENVIRONMENT},
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["told_mib"] / found["peak_mib"] == pytest.approx(1, abs=0.15)
