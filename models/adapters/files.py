"""Adapters by the name of their method, and from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from contracts.errors import UserError
from models.adapters.adapter import Adapter
from models.adapters.lora import LoRA
from models.diffusion.denoiser import Denoiser
from models.generator import Generator

_METHODS: dict[str, type[LoRA]] = {LoRA.method: LoRA}


def build(method: str, settings: dict[str, Any]) -> Adapter:
    """Returns a new adapter of a method.

    Raises
    ------
    UserError : if there is no such method.
    """
    if method not in _METHODS:
        raise UserError(f"unknown adapter '{method}': expected one of {', '.join(_METHODS)}")
    return _METHODS[method](**settings)


def load_adapted(path: Path, base: Generator) -> Generator:
    """Returns the generator that an adapter file makes of its base, with the adapter merged.

    Raises
    ------
    UserError : if the file cannot be read or was made for another base.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            description = json.loads(stream.metadata()["adapter"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read as an adapter ({error}): copy or train it again"
        ) from error
    if description["base"] != base.digest:
        raise UserError(
            f"{path} adapts the generator {description['base']}, this one is {base.digest}: load "
            "the base it was trained on, or adapt again"
        )
    prior = base.prior.with_gain(tensors.pop("prior.site_gain").numpy())
    config = base.config
    denoiser = Denoiser(
        base.dim, prior, config.network, config.diffusion.path, base.denoiser.null_token
    )
    denoiser.network.load_state_dict(base.denoiser.network.state_dict())
    adapter = build(description["method"], description["settings"])
    adapter.inject(denoiser.network)
    named = adapter.named_parameters()
    if named.keys() != tensors.keys():
        raise UserError(f"{path} does not name the layers of its base: adapt again")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[name])
    adapter.merge()
    return Generator(config, prior, denoiser)
