"""An adapted generator: a base and the adapters on it, in memory and on disk."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from contracts.errors import UserError
from models.adapters.files import ADAPTER_FILE, AdapterFile
from models.adapters.targets import Target
from models.diffusion.denoiser import Denoiser
from models.generator import CONFIG_FILE, Generator
from models.prior.prior import Prior

AnyModule = TypeVar("AnyModule", bound=nn.Module)
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FittedAdapter:
    """An adapter file and what it adds to its base; see `fit`.

    Parameters
    ----------
    changes : what is added to the tensors of the base at strength 1.
    strength : from 0 (the base) through 1 (as trained) to beyond.
    """

    base: Generator
    file: AdapterFile
    changes: Mapping[Target, Tensor]
    strength: float = 1.0

    def at(self, strength: float) -> FittedAdapter:
        """Returns the same adapter at another strength."""
        return replace(self, strength=strength)


def fit(base: Generator, file: AdapterFile, strength: float = 1.0) -> FittedAdapter:
    """Computes what an adapter adds to its base, which is left as it is.

    This is the slow part; an `AdaptedGenerator` is then made, at any strength, in the time that it
    takes to copy the network's weights.

    Raises
    ------
    UserError : if the adapter was made for another base, or means something else on this machine
        than where it was trained.
    """
    digest = base.digest
    if file.base != digest:
        raise UserError(
            f"the adapter ({file.method}) adapts the generator {file.base}, this one is "
            f"{digest}: load the base it was trained on, or adapt again"
        )
    network = copy.deepcopy(base.denoiser.network)
    adapter = file.attach(network)
    with torch.no_grad():
        changes = {
            target: change(target.of_base(network)).detach().clone()
            for target, change in adapter.changes.items()
        }
    return FittedAdapter(base, file, changes, strength)


def adapted(base: Generator, files: Sequence[tuple[AdapterFile, float]]) -> AdaptedGenerator:
    """Returns the generator that adapters, each at a strength, make of their base.

    Raises
    ------
    UserError : as `fit`.
    """
    return AdaptedGenerator([fit(base, file, strength) for file, strength in files])


class AdaptedGenerator(Generator):
    """The generator that adapters make of their base, which is left as it is.

    The changes of several adapters add up, and so do their shifts of the mean; the site gain is the
    product of theirs, each to the power of its strength. The coverage is that of the last adapter
    whose strength is not 0. The network is merged, so that sampling costs what it costs with the
    base; all but the network's weights is shared with the base.

    Parameters
    ----------
    adapters : at least one; all of one base.
    """

    def __init__(self, adapters: Sequence[FittedAdapter]) -> None:
        base = adapters[0].base
        if any(one.base is not base for one in adapters):
            raise ValueError("expected adapters that were fitted to one base")
        in_use = [one for one in adapters if one.strength != 0]
        coverage = in_use[-1].file.coverage if in_use else base.coverage
        super().__init__(
            replace(base.config, coverage=coverage), _prior(base, in_use), _merged(base, in_use)
        )
        self.base = base
        self.adapters = tuple(adapters)

    def at(self, strength: float) -> AdaptedGenerator:
        """Returns the generator with the strengths of its adapters times a factor."""
        made = AdaptedGenerator([one.at(strength * one.strength) for one in self.adapters])
        return made.with_provenance(self.provenance)

    def merged(self) -> Generator:
        """Returns the same generator as a whole one, which needs neither base nor adapters.

        Its digest is another one: that of the merged weights.
        """
        return Generator(self.config, self.prior, self.denoiser)

    def with_provenance(self, provenance: dict[str, Any]) -> AdaptedGenerator:
        """Returns the same generator with another provenance."""
        made = copy.copy(self)
        made.config = replace(self.config, provenance=provenance)
        return made

    @property
    def digest(self) -> str:
        """Short hash of its adapters, which name their base, and of their strengths.

        It is not one of the merged weights, which another machine may round otherwise.
        """
        parts = [(one.file.digest, float(one.strength)) for one in self.adapters]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Writes generator.json and the adapter files into `folder`, and nothing of the base."""
        folder.mkdir(parents=True, exist_ok=True)
        strengths = {}
        for i, one in enumerate(self.adapters):
            name = f"{i + 1}-{ADAPTER_FILE}" if i else ADAPTER_FILE
            one.file.write(folder / name)
            strengths[name] = one.strength
        content = {
            "format": _FORMAT,
            "base": self.adapters[0].file.base,
            "adapters": strengths,
            "provenance": self.provenance,
            "digest": self.digest,
        }
        (folder / CONFIG_FILE).write_text(json.dumps(content, indent=2) + "\n")


def load(folder: Path, base: Generator | None = None) -> Generator:
    """Reads a generator, adapted or not.

    Parameters
    ----------
    base : of an adapted generator, where it is loaded already; by default it is read from the
        folder beside this one that holds it, whatever that folder's name.

    Raises
    ------
    UserError : as `Generator.load` and `fit`; if there is no such base, or it is another one.
    """
    content = _description(folder)
    if content is None:
        return Generator.load(folder)
    if base is None:
        base = Generator.load(_beside(folder, content["base"]))
    adapters = [
        fit(base, AdapterFile.read(folder / name), strength)
        for name, strength in content["adapters"].items()
    ]
    generator = AdaptedGenerator(adapters).with_provenance(content["provenance"])
    if generator.digest != content["digest"]:
        raise UserError(
            f"the generator in {folder} is not what was saved: its adapters hash to "
            f"{generator.digest}, {CONFIG_FILE} says {content['digest']}; copy it again"
        )
    return generator


def base_digest(folder: Path) -> str | None:
    """Returns the digest of the base that the generator in a folder adapts; None if it is none.

    Raises
    ------
    UserError : if generator.json cannot be read, or another version wrote it.
    """
    content = _description(folder)
    return None if content is None else str(content["base"])


def _description(folder: Path) -> dict[str, Any] | None:
    """Returns what generator.json says of an adapted generator; None if it is another or none."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return None  # `Generator.load` says so
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if "adapters" not in content:
            return None
        if content["format"] != _FORMAT:
            raise UserError(
                f"{path}: format {content['format']} of adapted generators is not {_FORMAT}: use "
                "the version of this software that wrote it, or adapt again"
            )
        return {key: content[key] for key in ("base", "adapters", "provenance", "digest")}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error!r}): copy it or adapt again") from error


def _beside(folder: Path, digest: str) -> Path:
    """Returns the folder beside this one whose generator has a digest."""
    found = {}
    for path in sorted(folder.resolve().parent.glob(f"*/{CONFIG_FILE}")):
        try:
            content = json.loads(path.read_text())
            found[path.parent] = None if "adapters" in content else content["digest"]
        except (KeyError, TypeError, ValueError, OSError):
            continue  # a damaged one is not the base
    for place, other in found.items():
        if other == digest:
            return place
    others = [f"{other} ({place.name})" for place, other in found.items() if other is not None]
    raise UserError(
        f"the generator in {folder} adapts the base {digest}; found beside that folder: "
        f"{', '.join(others) or 'no base'}. Bring the base back (`dvc checkout`, `dvc pull`, or "
        "copy its folder there), or adapt the one that is there with `dvc repro`"
    )


def _prior(base: Generator, adapters: Sequence[FittedAdapter]) -> Prior:
    """Returns the prior of a base with the gain and the shift of the mean of adapters."""
    before = base.prior.site_gain.astype(np.float64)
    gain, shift = before.copy(), base.prior.mean_shift
    for one in adapters:
        gain *= (one.file.gain / before) ** one.strength
        if one.file.mean_shift is not None:
            added = one.strength * one.file.mean_shift
            shift = added if shift is None else shift + added
    return base.prior.with_gain(gain.astype(np.float32)).with_mean_shift(shift)


def _merged(base: Generator, adapters: Sequence[FittedAdapter]) -> Denoiser:
    """Returns the denoiser of a base with adapters in its weights."""
    made = _copied(base.denoiser)
    with torch.no_grad():
        for one in adapters:
            for target, change in one.changes.items():
                target.of_base(made.network).add_(one.strength * change)
    return made


def _copied(module: AnyModule) -> AnyModule:
    """Returns a module with weights of its own and the buffers of the other one.

    Buffers follow from the prior, are never changed in place, and are larger than the weights.
    `copy.deepcopy` takes several times as long, for what torch keeps in each module beside them.
    """
    made = copy.copy(module)
    # `ConditionedUNet.recompute` puts a method of the other module there.
    made.__dict__.pop("forward", None)
    made._parameters = {
        name: None if one is None else nn.Parameter(one.detach().clone(), requires_grad=False)
        for name, one in module._parameters.items()
    }
    made._buffers = dict(module._buffers)
    made._modules = {
        name: None if one is None else _copied(one) for name, one in module._modules.items()
    }
    return made
