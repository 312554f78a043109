"""The source repository's numbers, against MONAI and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.seed_compat import KERNEL, SCALES, SIDE, numbers, prepare
from tests.evaluation.people import people

MSE, MADE, REAL = (
    "voxel_mse_of_synthetic_and_real (called MMD there)",
    "ms_ssim_of_synthetic_pairs (window 2, 64^3)",
    "ms_ssim_of_real_pairs (window 2, 64^3)",
)


def test_units_are_lost_as_they_were_there() -> None:
    images = people(2, 0).volumes[:, 1]
    np.testing.assert_allclose(prepare(1000 * images), prepare(images), atol=1e-5)
    found = prepare(images)
    assert found.shape == (2, SIDE, SIDE, SIDE)
    assert (found.min(), found.max()) == (0, pytest.approx(1, abs=0.2))


def test_similarity_agrees_with_monai_at_that_setting() -> None:
    import torch
    from monai.metrics.regression import MultiScaleSSIMMetric

    images = people(2, 1).volumes[:, 1]
    a, b = (torch.from_numpy(v[None, None]) for v in prepare(images))
    metric = MultiScaleSSIMMetric(3, data_range=1.0, kernel_size=KERNEL, weights=SCALES)
    assert numbers(images, images)[MADE]["mean"] == pytest.approx(float(metric(a, b)), abs=1e-4)


def test_error_of_a_set_with_itself_counts_the_pairs_that_differ() -> None:
    images = people(3, 2).volumes[:, 1]
    found = numbers(images[[0, 0]], images[[0, 0]], pairs=20)
    assert found[MSE] == {"mean": 0, "sd": 0, "pairs": 20}
    both = numbers(images, images)
    assert both[MADE]["mean"] == pytest.approx(both[REAL]["mean"])


def test_one_map_is_too_few() -> None:
    images = people(2, 3).volumes[:, 1]
    with pytest.raises(ValueError, match="at least 2"):
        numbers(images[:1], images)
