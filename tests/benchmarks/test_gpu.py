"""The GPU comparison: it says so where there is no GPU, and its steps run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, result
from benchmarks.brains import prepare
from models.config import NetworkConfig


def test_no_gpu_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(result, "RESULTS", tmp_path)
    done = CliRunner().invoke(gpu.main, [])
    assert done.exit_code != 0
    assert done.stderr.strip() == (
        "error: no CUDA device here: run this on a machine with an NVIDIA GPU"
    )
    assert not list(tmp_path.iterdir())


def test_a_variant_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 2)
    monkeypatch.setattr(gpu, "WARM", 1)
    case = gpu.Case("tiny", (8, 8, 8), NetworkConfig(channels=(16, 16)), 1)
    generator, data = prepare(8, case.shape, case.network, tmp_path)
    before = generator.digest
    variant = gpu.Variant("all", bf16=False, recompute=True, channels_last=True)
    clock = gpu.Clock(torch.device("cpu"))
    found = gpu.train(case, variant, generator, data, clock)
    time = found["step_ms"]
    assert 0 < time["low"] <= time["value"] <= time["high"]
    assert generator.digest == before
