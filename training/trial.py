"""One trial of a search: what was tried and what came of it, as files that outlive the search."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Config = dict[str, Any]
_CONFIG = "config.json"
_RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Trial:
    """A finished trial.

    Parameters
    ----------
    key : content hash of the configuration; the name of the trial's folder.
    config : adapter settings that were tried.
    started : seconds since the epoch.
    seconds : how long the inner loop took.
    failure : why there is no result, or None.
    val_regional_distance : outer objective, to the target group's validation subjects; lower is
        better, and it may come out slightly negative.
    copy_share : share of samples that are near copies of a training subject.
    trainable, trainable_share : number of adapter parameters, and their share of the network's.
    adapter_bytes : size of the adapter file.
    run_id : of the trial's MLflow run.
    """

    key: str
    config: Config
    started: float
    seconds: float
    run_id: str
    failure: str | None = None
    val_regional_distance: float = math.nan
    copy_share: float = math.nan
    trainable: int = 0
    trainable_share: float = math.nan
    adapter_bytes: int = 0

    @property
    def failed(self) -> bool:
        """Whether there is no usable distance."""
        return self.failure is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not known is None, since JSON has no NaN."""
        plain = asdict(self)
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in plain.items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Trial:
        """Inverse of `to_json`."""
        known = {name: value for name, value in data.items() if value is not None}
        return cls(**known)


def rounded(config: Config) -> Config:
    """The configuration with its floats to three significant digits.

    More would only look exact, and these are the numbers that people copy.
    """
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in config.items()
    }


def key_of(config: Config) -> str:
    """A short content hash of a configuration."""
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class TrialFolder:
    """The trials of one study in a folder that all workers share.

    A trial that was begun has a configuration file, one that is over a result file: nothing else
    is needed to go on after a stop.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, config: Config) -> Path:
        """The trial's own folder, with its configuration written down."""
        folder = self.path / key_of(config)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _CONFIG, config)
        return folder

    def end(self, trial: Trial) -> None:
        """Write the result down."""
        folder = self.path / trial.key
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _RESULT, trial.to_json())

    def result(self, config: Config) -> Trial | None:
        """The result of a configuration, or None if it is not over."""
        path = self.path / key_of(config) / _RESULT
        return Trial.from_json(json.loads(path.read_text())) if path.exists() else None

    def finished(self) -> list[Trial]:
        """All trials that are over, in the order they were started."""
        paths = self.path.glob(f"*/{_RESULT}")
        trials = [Trial.from_json(json.loads(path.read_text())) for path in paths]
        return sorted(trials, key=lambda trial: (trial.started, trial.key))

    def interrupted(self) -> list[Config]:
        """Configurations that were begun but have no result."""
        folders = sorted(path.parent for path in self.path.glob(f"*/{_CONFIG}"))
        return [
            json.loads((folder / _CONFIG).read_text())
            for folder in folders
            if not (folder / _RESULT).exists()
        ]


def _write(path: Path, content: dict[str, Any]) -> None:
    # A worker may be ended at any time: the file is whole or not there.
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")
    partial.replace(path)
