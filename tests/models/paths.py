"""The paths, and MONAI's arguments for the published schedules, for tests."""

from __future__ import annotations

from typing import Any

from models.config import PathName

PATHS: tuple[PathName, ...] = ("flow", "linear", "scaled_linear", "cosine")
PUBLISHED: dict[PathName, dict[str, Any]] = {
    "linear": {"schedule": "linear_beta"},
    "scaled_linear": {
        "schedule": "scaled_linear_beta",
        "beta_start": 0.0015,
        "beta_end": 0.0195,
    },
    "cosine": {"schedule": "cosine"},
}
