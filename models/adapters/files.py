"""Adapter files: what turns a base generator into another one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.errors import UserError
from models.adapters.adapter import Adapter
from models.adapters.method import method
from models.coverage import Coverage
from models.diffusion.network import ConditionedUNet
from models.prior.prior import Prior

ADAPTER_FILE = "adapter.safetensors"
_FORMAT = 3
_GAIN = "prior.site_gain"
# The shift of the mean at the points of its grid where it is not zero, and which these are.
_SHIFT, _NODES = "prior.mean_shift", "prior.mean_shift_nodes"
_KEY = "adapter"
# Share of a change's checksum by which another machine's rounding may move it.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """What an adapter file holds.

    Parameters
    ----------
    method, settings : name and settings of the method, see `models.adapters.method`.
    blocks : patterns of the blocks that are changed.
    base : digest of the generator that it was trained on.
    coverage : whom it was trained on.
    gain : (C,), the adapted group's `Prior.site_gain`.
    mean_shift : the adapted group's `Prior.mean_shift`, in numbers of half precision, or None.
    tensors : the trained parameters by target and name.
    checksums : see `Adapter.checksums`.
    scores : measured on held-out subjects.
    """

    method: str
    settings: dict[str, Any]
    blocks: tuple[str, ...]
    base: str
    coverage: Coverage
    gain: NDArray[np.float32]
    mean_shift: NDArray[np.float32] | None
    tensors: Mapping[str, Tensor]
    checksums: Mapping[str, tuple[float, float]]
    scores: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        base: str,
        coverage: Coverage,
        prior: Prior,
        scores: Mapping[str, float],
    ) -> AdapterFile:
        """Describes a trained adapter.

        Parameters
        ----------
        base : digest of the base.
        prior : with the gain and the shift of the adapted group.
        """
        return cls(
            method=adapter.method.name,
            settings=adapter.method.settings(),
            blocks=adapter.blocks,
            base=base,
            coverage=coverage,
            gain=prior.site_gain,
            mean_shift=None if prior.mean_shift is None else _halved(prior.mean_shift),
            tensors={
                name: p.detach().cpu().contiguous()
                for name, p in adapter.named_parameters().items()
            },
            checksums=adapter.checksums(),
            scores=scores,
        )

    @classmethod
    def read(cls, path: Path) -> AdapterFile:
        """Reads a file that `write` wrote.

        Raises
        ------
        UserError : if it cannot be read, or another version wrote it.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as stream:
                content = json.loads(stream.metadata()[_KEY])
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            if content["format"] != _FORMAT:
                raise UserError(
                    f"{path}: adapter format {content['format']} is not {_FORMAT}: use the version "
                    "of this software that wrote it, or adapt again"
                )
            return cls(
                method=content["method"],
                settings=content["settings"],
                blocks=tuple(content["blocks"]),
                base=content["base"],
                coverage=Coverage.from_json(content["coverage"]),
                gain=tensors.pop(_GAIN).numpy(),
                mean_shift=_shift_of(tensors),
                tensors=tensors,
                checksums=content["checksums"],
                scores=content["scores"],
            )
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{path} cannot be read as an adapter ({error}): copy or train it again"
            ) from error

    def write(self, path: Path) -> None:
        """Writes one safetensors file; its header holds all that is not a tensor, as JSON."""
        from safetensors.torch import save_file

        content = {
            "format": _FORMAT,
            **self._identity(),
            "coverage": self.coverage.to_json(),
            "checksums": dict(self.checksums),
            "scores": dict(self.scores),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self._all_tensors(), path, metadata={_KEY: json.dumps(content)})

    @property
    def digest(self) -> str:
        """Short hash of everything that shapes the samples of its base with it."""
        content = hashlib.sha256(json.dumps(self._identity(), sort_keys=True).encode())
        for name, tensor in sorted(self._all_tensors().items()):
            content.update(name.encode())
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()[:16]

    def _identity(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "settings": self.settings,
            "blocks": list(self.blocks),
            "base": self.base,
        }

    def _all_tensors(self) -> dict[str, Tensor]:
        tensors = {**self.tensors, _GAIN: torch.from_numpy(self.gain)}
        if self.mean_shift is not None:
            nodes = self.mean_shift.any(axis=0)
            tensors[_NODES] = torch.from_numpy(nodes)
            values = np.ascontiguousarray(self.mean_shift[:, nodes], dtype=np.float16)
            tensors[_SHIFT] = torch.from_numpy(values)
        return tensors

    def attach(
        self, network: ConditionedUNet, name: str = "adapter", strength: float = 1.0
    ) -> Adapter:
        """Puts the adapter into the network of its base.

        Raises
        ------
        UserError : if the network has other layers, or its changes mean something else on this
            machine than where they were trained.
        """
        adapter = Adapter(network, method(self.method, self.settings), self.blocks, name=name)
        parameters = adapter.named_parameters()
        if {k: p.shape for k, p in parameters.items()} != {
            k: t.shape for k, t in self.tensors.items()
        }:
            adapter.detach()
            raise UserError(
                f"the adapter ({self.method}) does not fit the layers of this network: load the "
                "base it was trained on, or adapt again"
            )
        with torch.no_grad():
            for key, parameter in parameters.items():
                parameter.copy_(self.tensors[key])
        changed = [
            target
            for target, (value, size) in adapter.checksums().items()
            if abs(value - self.checksums[target][0]) > _TOLERANCE * max(size, 1e-12)
        ]
        if changed:
            adapter.detach()
            raise UserError(
                f"the adapter ({self.method}) changes {', '.join(changed[:3])} in another way than "
                "where it was trained: the weights of its base were decomposed otherwise there; "
                "adapt again on this machine, or save `AdaptedGenerator.merged` there and copy that"
            )
        adapter.strength = strength
        return adapter


def _halved(shift: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a shift as it is in a file; what is trained is noisier than this rounding."""
    return shift.astype(np.float16).astype(np.float32)


def _shift_of(tensors: dict[str, Tensor]) -> NDArray[np.float32] | None:
    """Takes the shift of the mean out of the tensors of a file; None if there is none."""
    if _SHIFT not in tensors:
        return None
    nodes, values = tensors.pop(_NODES).numpy(), tensors.pop(_SHIFT).numpy()
    shift = np.zeros((len(values), *nodes.shape), dtype=np.float32)
    shift[:, nodes] = values
    return shift
