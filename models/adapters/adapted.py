"""An adapted generator: a base and the adapters on it, in memory and on disk."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from contracts.errors import UserError
from models.adapters.files import AdapterFile
from models.adapters.targets import Target
from models.diffusion.denoiser import Denoiser
from models.generator import CONFIG_FILE, Generator
from models.generator_config import AdaptedConfig, adapted_from_json

AnyModule = TypeVar("AnyModule", bound=nn.Module)
# Adapters whose changes a base keeps, each as large as what it changes of the network.
_KEPT = 8


def adapted(base: Generator, files: Sequence[tuple[AdapterFile, float]]) -> Generator:
    """Returns the generator that adapters make of their base, which is left as it is.

    Its network is merged, so that sampling costs what it costs with the base. It shares with the
    base all but the network's weights. A base that was read from files keeps the changes of the last
    adapters, so that one after the other is put on it within a few hundredths of a second. Without
    any file the base itself is returned.

    Parameters
    ----------
    base : a generator without adapters. One that was read from files counts as those files.
    files : adapters and their strengths, from 0 (the base) through 1 (as trained) to beyond. The
        changes of several add up, and so do their shifts of the mean; the site gain is the product
        of theirs, each to the power of its strength. The coverage is that of the last one whose
        strength is not 0.

    Raises
    ------
    UserError : if an adapter was made for another base.
    """
    if not files:
        return base
    if base.adapters:
        raise ValueError("expected a base, got an adapted generator: adapt its `base`")
    digest = base.read_digest or base.digest
    for file, _ in files:
        if file.base != digest:
            raise UserError(
                f"the adapter ({file.method}) adapts the generator {file.base}, this one is "
                f"{digest}: load the base it was trained on, or adapt again"
            )
    gain = base.prior.site_gain.astype(np.float64)
    shift = base.prior.mean_shift
    coverage = base.coverage
    in_use = [(file, strength) for file, strength in files if strength != 0]
    for file, strength in in_use:
        gain *= (file.gain / base.prior.site_gain) ** strength
        if file.mean_shift is not None:
            shift = strength * file.mean_shift + (0 if shift is None else shift)
        coverage = file.coverage
    return Generator(
        replace(base.config, coverage=coverage),
        base.prior.with_gain(gain.astype(np.float32)).with_mean_shift(shift),
        _merged(base, in_use),
        base,
        files,
    )


def at_strength(generator: Generator, strength: float) -> Generator:
    """Returns an adapted generator with the strengths of its adapters times a factor.

    Raises
    ------
    UserError : if the generator has no adapter, and the factor is not 1.
    """
    if strength == 1:
        return generator
    if generator.base is None:
        raise UserError(
            f"strength {strength:g} needs a generator with an adapter, this one is a base: name an "
            "adapter, or leave the strength at 1"
        )
    return adapted(generator.base, [(file, strength * own) for file, own in generator.adapters])


def load(folder: Path, base: Generator | None = None) -> Generator:
    """Reads a generator, adapted or not.

    Parameters
    ----------
    base : of an adapted one, where it is loaded already; default: read from the folder that
        generator.json names.

    Raises
    ------
    UserError : as `Generator.load`; if the base is missing or is another one.
    """
    found = adapted_config(folder)
    if found is None:
        return Generator.load(folder)
    where = "the one at hand"
    if base is None:
        place = folder / found.base_folder
        where = str(place)
        if not (place / CONFIG_FILE).exists():
            raise UserError(
                f"the generator in {folder} is an adapter of the base {found.base_digest}, and "
                f"there is no generator in {place}: copy its base there (`dvc checkout`, "
                "`dvc pull`), or train it with `dvc repro`"
            )
        base = Generator.load(place)
    digest = base.read_digest or base.digest
    if digest != found.base_digest:
        raise UserError(
            f"the generator in {folder} is an adapter of the base {found.base_digest}, found "
            f"{digest} ({where}): copy the base that it was trained on, or adapt this one with "
            "`dvc repro`"
        )
    files = [
        (AdapterFile.read(folder / name), strength)
        for name, strength in zip(found.names, found.strengths, strict=True)
    ]
    generator = adapted(base, files).with_provenance(found.provenance)
    if generator.digest != found.digest:
        raise UserError(
            f"the generator in {folder} is not what was saved: its adapters hash to "
            f"{generator.digest}, {CONFIG_FILE} says {found.digest}; copy it again"
        )
    return generator


def adapted_config(folder: Path) -> AdaptedConfig | None:
    """Returns what generator.json says of an adapted generator; None if it is another one.

    Raises
    ------
    UserError : if it cannot be read.
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
        return adapted_from_json(content) if "adapters" in content else None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error!r}): copy the generator or adapt it again"
        ) from error


def _merged(base: Generator, files: Sequence[tuple[AdapterFile, float]]) -> Denoiser:
    """Returns the denoiser of a base with adapters in its weights."""
    made = _copied(base.denoiser)
    with torch.no_grad():
        for file, strength in files:
            for target, change in _changes(base, file).items():
                target.of_base(made.network).add_(change, alpha=strength)
    return made


def _changes(base: Generator, file: AdapterFile) -> dict[Target, Tensor]:
    """Returns `AdapterFile.changes`, kept beside a base that was read from files."""
    if base.read_digest is None:
        return file.changes(base.denoiser.network)  # its weights may still be trained
    kept = base.changes
    if id(file) not in kept:
        kept[id(file)] = file, file.changes(base.denoiser.network)
    # The last used ones stay; with its file, so that no other one gets its id.
    kept[id(file)] = kept.pop(id(file))
    while len(kept) > _KEPT:
        del kept[next(iter(kept))]
    return kept[id(file)][1]


def _copied(module: AnyModule) -> AnyModule:
    """Returns a module with weights of its own, and the buffers of the other one.

    `copy.deepcopy` would take ten times as long, and copy the buffers, which are ten times larger
    than the weights and never changed in place.
    """
    made = copy.copy(module)
    made._parameters = {
        name: None if one is None else Parameter(one.detach().clone(), requires_grad=False)
        for name, one in module._parameters.items()
    }
    made._buffers = dict(module._buffers)
    made._modules = {
        name: None if one is None else _copied(one) for name, one in module._modules.items()
    }
    return made
