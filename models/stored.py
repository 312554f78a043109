"""The tensors of a generator as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from models.autoencoder import Autoencoder
from models.config import LatentConfig
from models.field import Covariance
from models.latent import LatentPrior
from models.prior import Prior
from models.rim import Rim

WEIGHTS_FILE, PRIOR_FILE = "weights.safetensors", "prior.safetensors"
LATENT_FILE = "latent.safetensors"

Tensors = dict[str, Tensor]


def files(network: Module, prior: Prior | LatentPrior) -> dict[str, Tensors]:
    """Tensors by file and name; no two of all files have the same name."""
    weights = _state(network)
    if not isinstance(prior, LatentPrior):
        return {WEIGHTS_FILE: weights, PRIOR_FILE: _tensors(prior)}
    latent = {f"autoencoder.{k}": v for k, v in _state(prior.autoencoder).items()}
    latent |= {f"latent.{k}": v for k, v in _tensors(prior.start).items()}
    return {WEIGHTS_FILE: weights, PRIOR_FILE: _tensors(prior.voxels), LATENT_FILE: latent}


def all_tensors(network: Module, prior: Prior | LatentPrior) -> Tensors:
    """Those of all files."""
    return {k: v for tensors in files(network, prior).values() for k, v in tensors.items()}


def load_prior(
    folder: Path, latent: LatentConfig | None, sites: tuple[str, ...]
) -> Prior | LatentPrior:
    """The prior whose `files` are in a folder."""
    from safetensors.torch import load_file

    voxels = _prior(load_file(folder / PRIOR_FILE), sites)
    if latent is None:
        return voxels
    tensors = load_file(folder / LATENT_FILE)
    autoencoder = Autoencoder(voxels.channels, latent)
    autoencoder.load_state_dict(_below("autoencoder.", tensors))
    return LatentPrior(voxels, autoencoder.eval(), _prior(_below("latent.", tensors), sites))


def _below(name: str, tensors: Tensors) -> Tensors:
    return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}


def _state(module: Module) -> Tensors:
    return {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}


def _tensors(prior: Prior) -> Tensors:
    parts: dict[str, Any] = {
        f"prior.{name}": getattr(prior, name)
        for name in ("coefficients", "mask", "scale", "knots", "sd", "gain", "centre")
    }
    for name in ("power", "modes", "variance"):
        parts[f"covariance.{name}"] = getattr(prior.covariance, name)
    if prior.rim is not None:
        parts |= {"rim.slopes": prior.rim.slopes, "rim.centre": prior.rim.centre}
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in parts.items()}


def _prior(tensors: Tensors, sites: tuple[str, ...]) -> Prior:
    parts: dict[str, dict[str, Any]] = {"prior": {}, "covariance": {}, "rim": {}}
    for name, tensor in tensors.items():
        owner, field_name = name.split(".")
        parts[owner][field_name] = tensor.numpy()
    rim = Rim(**parts["rim"]) if parts["rim"] else None
    covariance = Covariance(**parts["covariance"])
    return Prior(covariance=covariance, sites=sites, rim=rim, **parts["prior"])
