"""What training reads: the same numbers as in memory, from files, in flat memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort import channels
from cohort.group_template import AXES, GroupTemplate
from cohort.subjects import SubjectFiles
from models.prior import covariance, quantiles
from models.prior.prior import Prior
from tests.cohort.tiny import SPACE, write_cohort
from training.dataset import Residuals
from training.relative import RelativeSubjects


def part_of(data: Path, subjects: int) -> SubjectFiles:
    write_cohort(data, subjects)
    return SubjectFiles.find(data / "derivatives", data / "split.json", "base", "train")


def test_residuals_are_those_of_the_prior(tmp_path: Path) -> None:
    part = part_of(tmp_path, 12)
    encoded = part.encoded(tmp_path / "work")
    prior = Prior.fit(encoded, channels.possible_brain(part.load().masks), part.conditions)
    prior = replace(prior, site_gain=np.array([1.1, 0.9, 1], dtype=np.float32))
    data = Residuals.of(prior, encoded, part.conditions, tmp_path / "work")
    assert len(data) == 12
    chosen = [7, 2, 7]
    residual, condition = data.rows(torch.tensor(chosen))
    people = [part.conditions[i] for i in chosen]
    np.testing.assert_allclose(residual, prior.residual(encoded[chosen], people), atol=1e-6)
    assert condition[:, 0].tolist() == pytest.approx([(p.age - 50) / 20 for p in people])
    again = Residuals.open(prior, part.conditions, tmp_path / "work")
    assert torch.equal(again.rows(torch.tensor(chosen))[0], residual)


def test_memory_is_flat_in_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = 4 * 3 * int(np.prod(SPACE.shape))
    monkeypatch.setattr(quantiles, "_BLOCK_BYTES", 4 * volume)
    monkeypatch.setattr(covariance, "_BLOCK_BYTES", 4 * volume)
    monkeypatch.setattr(covariance, "_MOST_SUBJECTS", 40)
    few = part_of(tmp_path / "few", 10)
    encoded = few.encoded(tmp_path)
    reach = channels.possible_brain(channels.brain(one) for one in encoded)
    template, _ = GroupTemplate.fit(encoded, reach, few.conditions)
    still = np.zeros((AXES, *SPACE.shape), dtype=np.float32)
    peaks = []
    for subjects in (10, 40, 160):
        data = tmp_path / str(subjects)
        part = part_of(data, subjects)
        tracemalloc.start()
        seen = RelativeSubjects.of(
            part.encoded(data), part.conditions, template, lambda _: still, data, part.digest
        )
        prior = Prior.fit(
            seen.relative, seen.possible_brain, part.conditions, transform=seen.transform
        )
        residuals = seen.residuals(prior, part.conditions, data)
        residuals.rows(torch.arange(4))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The first call pays for what is imported and cached. Some dozens of numbers per subject
    # remain: coefficients of the modes.
    assert peaks[2] - peaks[1] < 120 * volume / 10
