"""Cuts params.yaml of the current folder down to what `infra/check.sh` searches: one tiny trial.

It runs inside a container, where this folder is not: `python - <infra/check_params.py`.
"""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

TRIAL = {"rank": 2, "steps": 2, "blocks": "*attention*", "site_gain": True}


def cut(path: Path) -> None:
    """Writes the settings of one trial of a few steps into a parameter file."""
    yaml = YAML()
    params = yaml.load(path.read_text())
    params["adapt"]["held_out"] = {"samples": 2, "steps": 2}
    params["adapt"]["3d"] = {
        "method": "lora",
        "settings": {"rank": TRIAL["rank"]},
        "blocks": [TRIAL["blocks"]],
        "site_gain": TRIAL["site_gain"],
        "learning_rate": 1e-3,
        "steps": TRIAL["steps"],
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
        "max_copy_share": 1.0,
        "choices": {name: [value] for name, value in TRIAL.items()}
        | {"learning_rate": [1e-4, 1e-2]},
    }
    with path.open("w") as stream:
        yaml.dump(params, stream)


if __name__ == "__main__":
    cut(Path("params.yaml"))
