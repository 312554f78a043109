"""Write a trial's settings into `adapt.<dim>` of params.yaml."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from contracts.console import say
from contracts.params import PARAMS_FILE, load
from training.settings import AdaptSettings


def adopt(dim: str, wanted: AdaptSettings, path: Path = PARAMS_FILE) -> None:
    """Changes what differs; comments and everything else in the file stay as they are.

    A file in which nothing differs is not written.

    Parameters
    ----------
    wanted : the settings that `adapt.<dim>` shall have.
    """
    from ruamel.yaml import YAML

    section = f"adapt.{dim}"
    now = load(AdaptSettings, section, path)
    changed = {k: v for k, v in asdict(wanted).items() if v != asdict(now)[k]}
    if not changed:
        click.echo(f"{section} of {path} has these settings already")
        return
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    document = yaml.load(path.read_text())
    place = document["adapt"][dim]
    for name, value in changed.items():
        click.echo(f"{section}: {name}: {_plain(asdict(now)[name])} -> {_plain(value)}")
        _put(place, name, _plain(value))
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as stream:
        yaml.dump(document, stream)
    if load(AdaptSettings, section, partial) != wanted:
        raise RuntimeError(f"{partial} does not hold the wanted settings")
    partial.replace(path)
    say("next: dvc repro")


def _put(place: Any, name: str, value: Any) -> None:
    """Writes a value in the style, and with the comments, that the old one has."""
    old = place.get(name)
    if isinstance(old, dict) and isinstance(value, dict):
        for key in [key for key in old if key not in value]:
            del old[key]
        for key, one in value.items():
            if old.get(key) != one:
                old[key] = one
    elif isinstance(old, list) and isinstance(value, list):
        old[:] = value
    else:
        place[name] = value


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
