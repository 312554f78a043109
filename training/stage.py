"""What the training stages share: settings, folders, the run and its record."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contracts import paths
from contracts.condition import Condition
from contracts.tracking import Run, lineage, start_run
from models.generator import Generator
from training.gallery import sheet

# Runs are compared by the same two people, drawn from the same seeds.
PREVIEW_CONDITIONS = (Condition(30.0, "F"), Condition(75.0, "M"))
PREVIEW_SEEDS = (1, 2)
PREVIEW_STEPS = 4


@contextmanager
def work_folder(name: str, *content: Any) -> Iterator[Path]:
    """A folder that an interrupted stage finds again, and that goes when the stage is done.

    Parameters
    ----------
    content : everything that the work depends on, code included (`contracts.closure.digest`);
        another content is another folder.
    """
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:12]
    folder = paths.WORK / f"{name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def flat(settings: Any, prefix: str = "") -> dict[str, str]:
    """A nested dataclass as ``section/key`` -> text."""
    out: dict[str, str] = {}
    for key, value in (settings if isinstance(settings, dict) else asdict(settings)).items():
        if isinstance(value, dict):
            out.update(flat(value, f"{prefix}{key}/"))
        else:
            out[f"{prefix}{key}"] = str(value)
    return out


def open_run(
    name: str, stage: str, dim: str, settings: Any, key: str, inputs: Sequence[Path]
) -> tuple[Run, dict[str, str]]:
    """The run of a stage, continued after an interruption, and the lineage it carries.

    Parameters
    ----------
    inputs : the files and folders of `data/` that the stage reads.
    """
    tags = lineage(inputs)
    run = start_run(name, flat(settings), {"stage": stage, "dim": dim, **tags}, f"{name}-{key}")
    return run, tags


def preview(run: Run, generator: Generator, step: int) -> None:
    """Log samples of fixed conditions and seeds."""
    volumes = generator.sample(PREVIEW_CONDITIONS, PREVIEW_SEEDS, PREVIEW_STEPS)
    run.image(sheet(volumes, generator.maps), "samples/fa_md", step)


class Curve:
    """The training curve: sent to the run as it grows, kept as a CSV file for DVC's plots.

    The file has a row for each step whose training loss is logged; the cell of the held-out loss
    is empty where that was not measured.
    """

    def __init__(self, run: Run, path: Path) -> None:
        self._run = run
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, metrics: dict[str, float], step: int) -> None:
        self._run.metrics(metrics, step)
        if "train/loss" not in metrics:
            return
        header = "step,loss,val_loss"
        lines = self._path.read_text().splitlines() if self._path.exists() else [header]
        # A run that was stopped comes by the steps after its last checkpoint again.
        kept = [line for line in lines[1:] if int(line.split(",")[0]) < step]
        cells = [f"{metrics[k]:.5f}" if k in metrics else "" for k in ("train/loss", "val/loss")]
        row = ",".join([str(step), *cells])
        self._path.write_text("\n".join([lines[0], *kept, row]) + "\n")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that reads well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
