"""A small search space and stand-ins of the inner loop; workers import this module."""

from __future__ import annotations

import hashlib
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from training.search.database import url_of
from training.search.settings import FinalistSettings, SpaceSettings, TuneSettings
from training.search.space import Config, Space
from training.search.study import Study
from training.search.trial import Result
from training.settings import AdaptSettings

BLOCKS = ("out", "down.0.resnet.0", "middle.attention")
ADAPT = AdaptSettings(settings={"rank": 4}, steps=20)
SPACE = SpaceSettings(
    methods={"none": {}, "lora": {"rank": [2, 4], "learning_rate": [1e-4, 1e-1]}, "full": {}},
    steps=(10, 20),
    mean_shift=(True, False),
)


def settings(**changed: Any) -> TuneSettings:
    """Settings of a search on two CPUs."""
    plain: dict[str, Any] = {
        "dim": "3d",
        "trials": 6,
        "concurrent": 2,
        "cpus": 1,
        "gpus": 0.0,
        "seed": 0,
        "space": SPACE,
        "objectives": ("regional_distance", "trainable"),
        "limits": {"copy_share": 0.5},
        "finalists": FinalistSettings(trials=2, seeds=3),
    }
    return TuneSettings(**(plain | changed))


def space(given: SpaceSettings = SPACE) -> Space:
    """The space of these choices."""
    return Space(given, ADAPT, BLOCKS)


def study(folder: Path, name: str = "study", **changed: Any) -> Study:
    """A study in a file."""
    chosen = settings(**changed)
    return Study(url_of(folder), name, folder, chosen, space(chosen.space))


def result(distance: float = 0.5, **changed: Any) -> dict[str, Any]:
    """A result as the study keeps it."""
    plain: dict[str, Any] = {
        "regional_distance": distance,
        "copy_share": 0.0,
        "trainable": 100,
        "trainable_share": 0.01,
        "adapter_bytes": 2048,
        "seconds": 1.0,
        "memory_mb": 100.0,
        "held_out_loss": {},
        "kept_step": None,
    }
    return plain | changed


def distance(config: Config) -> float:
    """Known answer of the inner loop: least at a learning rate of 0.01, whatever the rest."""
    return (math.log10(config.get("learning_rate", 1.0)) + 2) ** 2


def inner(config: Config, shared: Any, folder: Path, told: Any) -> Result:
    """Costs nothing; the method `full` fails, as if memory lacked."""
    if config["method"] == "full":
        raise MemoryError("no room for all weights")
    if config["method"] != "none":
        told.metrics({"val/loss": 1.0}, step=0)
        told.metrics({"val/loss": 0.9}, step=5)
    told.image(np.zeros((4, 4)), "samples/fa_md", 10)
    (folder / "adapter.safetensors").write_bytes(b"x" * config["settings"].get("rank", 0))
    return Result(
        **(result(distance(config)) | {"held_out_loss": told.losses, "trainable": len(config)})
    )


def nan(config: Config, shared: Any, folder: Path, told: Any) -> Result:
    """Ends in a number that is none."""
    return Result(**result(math.nan))


def slow(config: Config, shared: Any, folder: Path, told: Any) -> Result:
    """Takes as many seconds as `shared` says, after its first report."""
    told.metrics({"val/loss": 1.0}, step=0)
    time.sleep(float(shared))
    return inner({**config, "method": "lora"}, shared, folder, told)


def killed_once(config: Config, shared: Any, folder: Path, told: Any) -> Result:
    """Ends its worker the first time that a settings' trial runs, as the kernel does when memory
    is short; `shared` is a folder that remembers."""
    key = hashlib.sha256(repr(sorted(config.items(), key=str)).encode()).hexdigest()
    mark = Path(shared) / key
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return inner({**config, "method": "lora"}, shared, folder, told)


def always_killed(config: Config, shared: Any, folder: Path, told: Any) -> Result:
    """Ends its worker, unless the file `shared` exists."""
    if not Path(shared).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return inner({**config, "method": "lora"}, shared, folder, told)


def learning(config: Config, shared: Any, folder: Path, told: Any) -> Result:
    """Tells a held-out loss at every step that is smaller the higher the learning rate is."""
    if config["method"] == "none":
        return inner(config, shared, folder, told)
    for step in range(int(config["steps"]) + 1):
        told.metrics({"val/loss": 1 / config["learning_rate"]}, step=step)
        time.sleep(0.02)
    return inner({**config, "method": "lora"}, shared, folder, told)
