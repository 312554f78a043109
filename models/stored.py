"""The tensors of a generator as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from models.autoencoder import Autoencoder
from models.config import LatentConfig
from models.field import Covariance
from models.frame import Frame
from models.latent import LatentPrior
from models.prior import Prior
from models.rim import Rim

WEIGHTS_FILE, PRIOR_FILE = "weights.safetensors", "prior.safetensors"
LATENT_FILE = "latent.safetensors"
_FRAME = ("image", "effects", "centre", "precision", "knots", "mixing")

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
    if prior.frame is not None:
        parts |= frame_arrays(prior.frame)
        parts["frame.stretch"] = np.float32(prior.stretch).reshape(1)
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in parts.items()}


def _prior(tensors: Tensors, sites: tuple[str, ...]) -> Prior:
    parts: dict[str, dict[str, Any]] = {"prior": {}, "covariance": {}, "rim": {}, "frame": {}}
    for name, tensor in tensors.items():
        owner, field_name = name.split(".")
        parts[owner][field_name] = tensor.numpy()
    mask = parts["prior"]["mask"]
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    frame = load_frame(arrays, mask, sites) if parts["frame"] else None
    covariance = Covariance(**parts["covariance"])
    stretch = float(arrays["frame.stretch"][0]) if frame else 1.0
    return Prior(covariance=covariance, sites=sites, frame=frame, stretch=stretch, **parts["prior"])


def frame_arrays(frame: Frame) -> dict[str, Any]:
    """The arrays of a frame by name, but for its mask, which is the prior's."""
    parts = {f"frame.{name}": getattr(frame, name) for name in _FRAME}
    parts["frame.width"] = np.float32(frame.width).reshape(1)
    return parts | {"rim.slopes": frame.rim.slopes, "rim.centre": frame.rim.centre}


def load_frame(arrays: Mapping[str, Any], mask: Any, sites: tuple[str, ...]) -> Frame:
    """Inverse of `frame_arrays`, but for the mask."""
    return Frame(
        rim=Rim(arrays["rim.slopes"], arrays["rim.centre"]),
        mask=mask,
        width=float(arrays["frame.width"][0]),
        sites=sites,
        **{name: arrays[f"frame.{name}"] for name in _FRAME},
    )
