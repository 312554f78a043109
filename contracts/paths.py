"""Where a project keeps its data, relative to its root (the folder of params.yaml)."""

from __future__ import annotations

from pathlib import Path

DATA = Path("data")
DICOM_INPUT = DATA / "DICOM_input"
MASKS = DATA / "Masks"
BIDS = DATA / "bids"
DERIVATIVES = DATA / "derivatives"
TEMPLATE = DATA / "template"
SPLIT = DATA / "split.json"
MODELS = DATA / "models"
REPORTS = DATA / "reports"
# Caches and interrupted work; it may be deleted at any time.
WORK = DATA / "work"
