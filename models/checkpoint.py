"""The tensors of a generator as safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from models.prior.covariance import Covariance
from models.prior.prior import Prior
from models.prior.template_transform import TemplateTransform

WEIGHTS_FILE, PRIOR_FILE = "weights.safetensors", "prior.safetensors"
_PRIOR = ("coefficients", "mask", "scale", "knots", "site_gain")
_COVARIANCE = ("power", "modes", "variance")
_TRANSFORM, _MEAN_SHIFT = "transform.", "prior.mean_shift"

Tensors = dict[str, Tensor]


def tensors_by_file(network: Module, prior: Prior) -> dict[str, Tensors]:
    """Returns the tensors by file and name; a name is used in one file only."""
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    arrays: dict[str, Any] = {f"prior.{name}": getattr(prior, name) for name in _PRIOR}
    for name in _COVARIANCE:
        arrays[f"covariance.{name}"] = getattr(prior.covariance, name)
    if prior.mean_shift is not None:
        arrays[_MEAN_SHIFT] = prior.mean_shift
    if prior.transform is not None:
        own = prior.transform.arrays()
        arrays |= {f"{_TRANSFORM}{name}": array for name, array in own.items()}
    # Copies, since safetensors refuses arrays that share memory, as the masks of the prior and of
    # its template may.
    tensors = {name: torch.from_numpy(np.array(a, order="C")) for name, a in arrays.items()}
    return {WEIGHTS_FILE: weights, PRIOR_FILE: tensors}


def all_tensors(network: Module, prior: Prior) -> Tensors:
    """Returns the tensors of all files by name."""
    return {
        k: v for tensors in tensors_by_file(network, prior).values() for k, v in tensors.items()
    }


def load_prior(folder: Path, sites: tuple[str, ...]) -> Prior:
    """Reads the prior whose files are in a folder."""
    from safetensors.torch import load_file

    arrays = {k: tensor.numpy() for k, tensor in load_file(folder / PRIOR_FILE).items()}
    own = {
        k.removeprefix(_TRANSFORM): array for k, array in arrays.items() if k.startswith(_TRANSFORM)
    }
    return Prior(
        covariance=Covariance(**{name: arrays[f"covariance.{name}"] for name in _COVARIANCE}),
        sites=sites,
        transform=TemplateTransform.from_arrays(own) if own else None,
        mean_shift=arrays.get(_MEAN_SHIFT),
        **{name: arrays[f"prior.{name}"] for name in _PRIOR},
    )
