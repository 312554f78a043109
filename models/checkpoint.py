"""The tensors of a generator by name, as they stand in its safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from cohort.group_template import GroupTemplate
from models.prior.covariance import Covariance
from models.prior.prior import Prior
from models.prior.stationary import StationaryField

WEIGHTS_FILE, PRIOR_FILE = "weights.safetensors", "prior.safetensors"
_COVARIANCE, _SHAPE = ("power", "modes", "variance"), "prior.shape_power"
_TEMPLATE, _MEAN_SHIFT = "template.", "prior.mean_shift"
_SCALE, _GAIN, _OUTLINE = "prior.scale", "prior.site_gain", "prior.outline_sigma"
# In half precision, see `Prior.fit`.
_COEFFICIENTS, _TEMPLATE_IMAGE = "prior.coefficients", f"{_TEMPLATE}image"

Tensors = dict[str, Tensor]


def tensors_by_file(network: Module, prior: Prior) -> dict[str, Tensors]:
    """Returns the tensors by file and name; a name is used in one file only."""
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    arrays: dict[str, Any] = {
        _COEFFICIENTS: prior.coefficients.astype(np.float16),
        _SCALE: prior.scale,
        _GAIN: prior.site_gain,
        _SHAPE: prior.shape_field.power,
        _OUTLINE: np.array([prior.outline_sigma]),
    }
    for name in _COVARIANCE:
        arrays[f"covariance.{name}"] = getattr(prior.map_covariance, name)
    if prior.mean_shift is not None:
        arrays[_MEAN_SHIFT] = prior.mean_shift
    arrays |= {f"{_TEMPLATE}{name}": array for name, array in prior.template.arrays().items()}
    arrays[_TEMPLATE_IMAGE] = prior.template.image.astype(np.float16)
    # Copies, since safetensors refuses arrays that share memory.
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
    arrays[_TEMPLATE_IMAGE] = arrays[_TEMPLATE_IMAGE].astype(np.float32)
    template = {
        k.removeprefix(_TEMPLATE): array for k, array in arrays.items() if k.startswith(_TEMPLATE)
    }

    return Prior(
        template=GroupTemplate.from_arrays(template),
        coefficients=arrays[_COEFFICIENTS].astype(np.float32),
        scale=arrays[_SCALE],
        map_covariance=Covariance(**{name: arrays[f"covariance.{name}"] for name in _COVARIANCE}),
        shape_field=StationaryField(arrays[_SHAPE]),
        site_gain=arrays[_GAIN],
        sites=sites,
        outline_sigma=float(arrays[_OUTLINE][0]),
        mean_shift=arrays.get(_MEAN_SHIFT),
    )
