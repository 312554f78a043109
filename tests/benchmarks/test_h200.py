"""The GPU comparison: it says so where there is no GPU, and its steps run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import h200
from benchmarks.brains import prepare
from models.config import NetworkConfig


def test_no_gpu_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(h200.main, ["--out", str(tmp_path / "out.json")])
    assert done.exit_code != 0
    assert done.stderr.strip() == (
        "error: no CUDA device here: run this on a machine with an NVIDIA GPU"
    )
    assert not (tmp_path / "out.json").exists()


def test_a_variant_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h200, "STEPS", 2)
    monkeypatch.setattr(h200, "WARM", 1)
    case = h200.Case("tiny", (8, 8, 8), NetworkConfig(channels=(16, 16)), 1)
    generator, data = prepare(8, case.shape, case.network, tmp_path)
    before = generator.digest
    variant = h200.Variant("all", bf16=False, recompute=True, channels_last=True)
    clock = h200.Clock(torch.device("cpu"))
    found = h200.train(case, variant, generator, data, clock)
    assert 0 < found["ms_least"] <= found["ms_median"] <= found["ms_most"]
    assert generator.digest == before
