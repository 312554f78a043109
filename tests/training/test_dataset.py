"""What training reads: what the prior makes of each subject, from files, in flat memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort import channels, row_cache
from cohort.group_template import AXES, GroupTemplate
from cohort.interpolation import smooth
from cohort.subjects import SubjectFiles
from models.prior import covariance
from models.prior.prior import Prior
from tests.cohort.tiny import SPACE, write_cohort
from training.dataset import TrainingImages


def part_of(data: Path, subjects: int) -> SubjectFiles:
    write_cohort(data, subjects)
    return SubjectFiles.find(data / "derivatives", data / "split.json", "base", "train")


def bends(subjects: int) -> np.ndarray:
    """Smooth displacements (n, 3, X, Y, Z) of about half a voxel."""
    rng = torch.Generator().manual_seed(3)
    fields = [smooth(torch.randn(AXES, *SPACE.shape, generator=rng), 1.5) for _ in range(subjects)]
    return np.stack([(0.5 * field / field.std()).numpy() for field in fields])


def template_of(part: SubjectFiles, encoded: np.ndarray) -> GroupTemplate:
    reach = channels.possible_brain(channels.brain(one) for one in encoded)
    return GroupTemplate.fit(encoded, reach, part.conditions)[0]


def test_rows_are_what_the_prior_makes_of_each_subject(tmp_path: Path) -> None:
    part = part_of(tmp_path, 12)
    encoded, displacements = part.encoded(tmp_path / "work"), bends(12)
    prior = Prior.fit(template_of(part, encoded), encoded, displacements, part.conditions)
    prior = replace(prior, site_gain=np.array([1.1, 0.9, 1], dtype=np.float32))
    data = TrainingImages.of(prior, encoded, displacements, part.conditions, tmp_path / "work")
    assert len(data) == 12
    chosen = torch.tensor([7, 2, 7])
    residual, expected, condition = data.rows(chosen)
    for row, i in enumerate(chosen.tolist()):
        maps = prior.residual_and_expected(encoded[i], displacements[i], part.conditions[i])
        np.testing.assert_array_equal(residual[row], maps[0])
        np.testing.assert_array_equal(expected[row], maps[1])
    ages = [(part.conditions[i].age - 50) / 20 for i in chosen.tolist()]
    assert condition[:, 0].tolist() == pytest.approx(ages)
    again = TrainingImages.open(prior, part.conditions, tmp_path / "work")
    for one, other in zip(again.rows(chosen), data.rows(chosen), strict=True):
        assert torch.equal(one, other)


def test_volumes_of_the_rows_are_those_of_the_subjects(tmp_path: Path) -> None:
    part = part_of(tmp_path, 12)
    encoded, displacements = part.encoded(tmp_path / "work"), bends(12)
    prior = Prior.fit(template_of(part, encoded), encoded, displacements, part.conditions)
    data = TrainingImages.of(prior, encoded, displacements, part.conditions, tmp_path / "work")
    residual, expected, _ = data.rows(torch.arange(12))
    found = prior.volumes(residual.numpy(), expected.numpy())
    # A few residuals are clipped.
    inside = np.broadcast_to(prior.mask, residual.shape) & (residual.abs() < 3.99).numpy()
    assert inside.sum() > 0.99 * 12 * 2 * prior.mask.sum()
    for k in range(2):
        np.testing.assert_allclose(
            found[:, k][inside[:, k]], encoded[:, k][inside[:, k]], atol=1e-5
        )
    np.testing.assert_array_equal(found[:, -1], encoded[:, -1])


def test_memory_is_flat_in_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = 4 * 3 * int(np.prod(SPACE.shape))
    monkeypatch.setattr(covariance, "_BLOCK_BYTES", 4 * volume)
    monkeypatch.setattr(covariance, "_MOST_SUBJECTS", 40)
    few = part_of(tmp_path / "few", 10)
    template, bent = template_of(few, few.encoded(tmp_path)), bends(10)
    peaks = []
    for subjects in (10, 40, 160):
        data = tmp_path / str(subjects)
        part = part_of(data, subjects)
        shape = (subjects, AXES, *SPACE.shape)
        tracemalloc.start()
        encoded = part.encoded(data)
        displacements = row_cache.rows(data / "u.npy", shape, lambda i: bent[i % 10], "bends")
        prior = Prior.fit(template, encoded, displacements, part.conditions)
        images = TrainingImages.of(prior, encoded, displacements, part.conditions, data)
        images.rows(torch.arange(4))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The first call pays for what is imported and cached. Some dozens of numbers per subject
    # remain: coefficients of the modes.
    assert peaks[2] - peaks[1] < 120 * volume / 10
