"""The planner's command: what it proposes fits, and more memory never means less."""

from __future__ import annotations

import functools
import re

import pytest
from click.testing import CliRunner, Result

from training.plan import main


@functools.cache
def planned(memory: str, *more: str) -> Result:
    arguments = ["--mode", "2D", "--peft", "lora", "--memory", memory, "--no-time", *more]
    return CliRunner().invoke(main, arguments)


def number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def test_the_peak_is_within_the_memory_and_has_its_parts() -> None:
    text = planned("1.4GB").output
    peak = number(text, r"peak: ([\d.]+) GB")
    parts = [number(text, rf"{part} ([\d.]+)") for part in
             ("libraries", "loaded", "optimizer and average", "step")]  # fmt: skip
    assert peak <= 1.4
    assert sum(parts) == pytest.approx(peak, abs=0.03)


def test_more_memory_never_means_a_smaller_batch() -> None:
    batches = [number(planned(memory).output, r"batch: (\d+)") for memory in ("1.2GB", "1.4GB")]
    assert 1 <= batches[0] < batches[1] <= 64


def test_too_little_memory_says_what_helps() -> None:
    found = planned("0.9GB")
    assert found.exit_code == 2
    assert "0.9GB does not hold a batch of one: take larger voxels" in found.output


def test_a_gpu_is_planned_in_bf16_with_the_batch_that_was_asked_for_at_most() -> None:
    text = planned("16GB", "--gpu", "--batch", "2").output
    assert "batch: 2\n" in text
    assert "precision: bf16" in text
    assert "not compared with a GPU's own count" in text
