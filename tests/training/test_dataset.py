"""What training reads: the same numbers as in memory, from files, in flat memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from contracts.errors import UserError
from contracts.maps import MAPS
from models import curves, field, representation
from models.prior import Prior
from tests.models.tiny import SPACE
from tests.training.tiny_cohort import write_cohort
from training import dataset


def part_of(data: Path, subjects: int) -> dataset.Part:
    write_cohort(data, subjects)
    return dataset.Part.find(data / "derivatives", data / "split.json", "base", "train")


def test_encoded_files_hold_what_memory_would(tmp_path: Path) -> None:
    part = part_of(tmp_path, 12)
    whole = part.load()
    expected = representation.encode(whole.volumes, whole.masks, MAPS)
    encoded = part.encoded(tmp_path / "work")
    np.testing.assert_array_equal(encoded, expected)
    np.testing.assert_array_equal(representation.brain(encoded), whole.masks)


def test_the_file_is_kept_and_belongs_to_its_subjects(tmp_path: Path) -> None:
    part, work = part_of(tmp_path, 12), tmp_path / "work"
    part.encoded(work)
    part.encoded(work)
    assert len(list(work.iterdir())) == 1
    replace(part, digest="another").encoded(work)
    assert len(list(work.iterdir())) == 2


def test_the_digest_follows_the_volumes(tmp_path: Path) -> None:
    first = part_of(tmp_path, 12)
    files = sorted(first.cohort.root.rglob("*_dwimap.nii.gz"))
    assert part_of(tmp_path, 12).digest == first.digest
    files[0].write_bytes(files[1].read_bytes())
    path = tmp_path / "split.json"
    assert dataset.Part.find(first.cohort.root, path, "base", "train").digest != first.digest
    files[0].unlink()
    with pytest.raises(UserError, match="no such volume"):
        dataset.Part.find(first.cohort.root, path, "base", "train")


def test_residuals_and_means_are_those_of_the_prior(tmp_path: Path) -> None:
    part = part_of(tmp_path, 12)
    encoded = part.encoded(tmp_path / "work")
    prior = Prior.fit(encoded, representation.reach(part.load().masks), part.conditions)
    prior = replace(prior, gain=np.array([1.1, 0.9, 1], dtype=np.float32))
    data = dataset.Residuals.of(prior, encoded, part.conditions, tmp_path / "work")
    chosen = [7, 2, 7]
    residual, condition, mean = data.rows(torch.tensor(chosen))
    people = [part.conditions[i] for i in chosen]
    np.testing.assert_allclose(residual, prior.residual(encoded[chosen], people), atol=1e-6)
    np.testing.assert_allclose(mean, prior.mean(people), atol=1e-6)
    assert condition[:, 0].tolist() == pytest.approx([(p.age - 50) / 20 for p in people])


def test_memory_is_flat_in_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volume = 4 * 3 * int(np.prod(SPACE.shape))
    monkeypatch.setattr(curves, "_SLAB_BYTES", 4 * volume)
    monkeypatch.setattr(field, "_BLOCK_BYTES", 4 * volume)
    monkeypatch.setattr(field, "_ENOUGH", 40)
    peaks = []
    for subjects in (10, 40, 160):
        data = tmp_path / str(subjects)
        part = part_of(data, subjects)
        tracemalloc.start()
        encoded = part.encoded(data / "work")
        reach = representation.reach(representation.brain(one) for one in encoded)
        prior = Prior.fit(encoded, reach, part.conditions)
        residuals = dataset.Residuals.of(prior, encoded, part.conditions, data / "work")
        residuals.rows(torch.arange(4))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The first call pays for what is imported and cached. Some dozens of numbers per subject
    # remain: coefficients of the modes.
    assert peaks[2] - peaks[1] < 120 * volume / 10
