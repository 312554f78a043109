"""A cohort in the frame of its template, computed once and kept."""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.condition import Condition
from contracts.console import progress
from contracts.space import Space
from models import curves, representation, rim, stored, template, warp
from models import frame as frame_module
from models.frame import Frame
from models.latent import LatentPrior
from models.prior import Prior
from training import cache
from training.cache import Array
from training.dataset import Residuals

# Of the smoothing of displacements.
_WIDTH_MM = 4.0
_STANDARD = "standard.npy"


@dataclass(frozen=True, slots=True)
class Framed:
    """Subjects as a template sees them.

    Parameters
    ----------
    reach : (X, Y, Z), see `models.representation.reach`.
    encoded : (n, C, X, Y, Z), see `models.representation.encode`.
    standard : (n, C + 3, X, Y, Z), see `Frame.standard`; a memory map.
    """

    frame: Frame
    reach: NDArray[np.bool_]
    encoded: Array
    standard: Array

    @classmethod
    def of(
        cls,
        encoded: Array,
        conditions: Sequence[Condition],
        space: Space,
        folder: Path,
        digest: str,
        sites: tuple[str, ...] = (),
    ) -> Framed:
        """The template of encoded (n, C, X, Y, Z) volumes, and the volumes in its frame.

        Both are kept in `folder`: every generator of these subjects starts from them.

        Parameters
        ----------
        digest : of the volumes and conditions.
        """
        from safetensors.numpy import load_file

        key = hashlib.sha256(f"{digest} {sites}".encode())
        for module in (representation, curves, rim, warp, template, frame_module):
            key.update(inspect.getsource(module).encode())
        kept = folder / f"frame-{key.hexdigest()[:16]}"
        reach = representation.reach(representation.brain(volume) for volume in encoded)
        file = kept / "frame.safetensors"
        with cache.alone(kept):
            if not file.exists():
                _make(file, encoded, reach, conditions, space, sites)
        # torch wants arrays that may be written.
        arrays = {name: np.array(values) for name, values in load_file(file).items()}
        frame = stored.load_frame(arrays, reach, sites)
        return cls(frame, reach, encoded, np.load(kept / _STANDARD, mmap_mode="r"))

    def residuals(
        self, prior: Prior | LatentPrior, conditions: Sequence[Condition], work: Path
    ) -> Residuals:
        """What a denoiser of this prior is trained on, written to the folder `work`."""
        own = prior.frame is not None
        seen = self.standard if own else self.encoded
        return Residuals.of(prior, seen, conditions, work, standard=own)


def _make(
    file: Path,
    encoded: Array,
    reach: NDArray[np.bool_],
    conditions: Sequence[Condition],
    space: Space,
    sites: tuple[str, ...],
) -> None:
    """Write the frame to `file` and standard volumes beside it."""
    from safetensors.numpy import save_file

    # As it will be read again: registration is to find the same to the last bit.
    width = float(np.float32(_WIDTH_MM / min(space.zooms)))
    scratch = file.parent / "fit"
    frame, shifts = Frame.fit(encoded, reach, conditions, sites, width, scratch, progress)

    def row(i: int) -> Array:
        return frame.displaced(encoded[i], np.array(shifts[i]))

    shape = (len(encoded), frame.channels, *reach.shape)
    cache.rows(file.parent / _STANDARD, shape, row, "see through the template")
    arrays = {name: np.ascontiguousarray(v) for name, v in stored.frame_arrays(frame).items()}
    partial = file.with_suffix(".partial")
    save_file(arrays, partial)
    shutil.rmtree(scratch)
    partial.replace(file)
