"""Cuts params.yaml of the current folder down to what `infra/check.sh` searches: one tiny trial.

It runs inside a container, where this folder is not: `python - <infra/check_params.py`.
"""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

RANK, STEPS, BLOCKS = 2, 2, ["*attention*"]


def cut(path: Path) -> None:
    """Writes the settings of one trial of a few steps into a parameter file."""
    yaml = YAML()
    params = yaml.load(path.read_text())
    params["adapt"]["held_out"] = {"samples": 2, "steps": 2}
    params["adapt"]["3d"] = {
        "method": "lora",
        "settings": {"rank": RANK},
        "blocks": BLOCKS,
        "site_gain": True,
        "learning_rate": 1e-3,
        "steps": STEPS,
        "batch": 2,
    }
    params["tune"] = {
        "dim": "3d",
        "trials": 1,
        "concurrent": 1,
        "cpus": 1,
        "gpus": 0.0,
        "seed": 0,
        "samples": 2,
        "evaluations": 1,
        "finalists": {"trials": 1, "seeds": 3},
        "space": {"methods": {"lora": {"rank": [RANK]}}, "steps": [STEPS]},
    }
    with path.open("w") as stream:
        yaml.dump(params, stream)


if __name__ == "__main__":
    cut(Path("params.yaml"))
