"""What a perfect generator of latents would still lose: real volumes through the autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.held_out import kernel_distance
from models.generator import Generator
from training.dataset import Subjects


def reconstructed(generator: Generator, subjects: Subjects) -> np.ndarray:
    """The subjects' volumes as their latents hold them, (n, maps, X, Y, Z), physical units."""
    made = np.empty_like(subjects.volumes)
    encoded = subjects.encoded()
    for i in range(len(encoded)):
        who = subjects.conditions[i : i + 1]
        made[i] = generator.decode(generator.prior.residual(encoded[i : i + 1], who), who)[0]
    return made


def ceiling(generator: Generator, train: Subjects, held_out: Subjects) -> dict[str, Any]:
    """Errors of held-out subjects that went through the latents and back.

    Returns
    -------
    ``subjects``: n; ``fa_error``, ``md_error``...: mean absolute error inside the brain, in the
    map's unit; ``kernel_distance``, ``kernel_distance_real``: of the reconstructed and of the same
    real volumes from the training subjects, see `evaluation.held_out`.
    """
    made = reconstructed(generator, held_out)
    out: dict[str, Any] = {"subjects": len(made)}
    for k, spec in enumerate(held_out.maps):
        gap = np.abs(made[:, k] - held_out.volumes[:, k])[held_out.masks]
        out[f"{spec.name}_error"] = float(gap.mean(dtype=np.float64))
    for name, volumes in (("", made), ("_real", held_out.volumes)):
        found = kernel_distance(volumes, train.volumes, train.volumes, generator.space)
        out[f"kernel_distance{name}"] = found
    return out
