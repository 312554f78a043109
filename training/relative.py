"""Training subjects relative to the group template, computed once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort import channels, row_cache
from cohort.group_template import AXES, GroupTemplate
from cohort.row_cache import Array
from cohort.subjects import SubjectFiles
from contracts import closure
from contracts.condition import Condition
from models.prior.prior import Prior
from models.prior.template_transform import TemplateTransform
from training.dataset import Residuals

_TRANSFORM, _RELATIVE = "transform.safetensors", "relative.npy"
_DISPLACEMENTS = "displacements.npy"


@dataclass(frozen=True, slots=True)
class RelativeSubjects:
    """Training subjects as the prior sees them.

    Parameters
    ----------
    transform : between encoded and relative volumes.
    possible_brain : (X, Y, Z), voxels that a brain may reach.
    encoded : (n, C, X, Y, Z), in the channels of `cohort.channels`.
    relative : (n, C + 3, X, Y, Z), see `models.prior.template_transform`; a memory map.
    """

    transform: TemplateTransform
    possible_brain: NDArray[np.bool_]
    encoded: Array
    relative: Array

    @classmethod
    def of(
        cls,
        encoded: Array,
        conditions: Sequence[Condition],
        template: GroupTemplate,
        displacement: Callable[[int], Array],
        folder: Path,
        digest: str,
        sites: tuple[str, ...] = (),
    ) -> RelativeSubjects:
        """Fits the transform and applies it to the subjects that it was fitted to.

        Both are kept in `folder`: every generator of these subjects starts from them. A call that
        was stopped goes on.

        Parameters
        ----------
        encoded : (n, C, X, Y, Z).
        displacement : gives the i-th subject's displacement to the template, (3, X, Y, Z).
        digest : of the volumes, the conditions, the template and the displacements.
        sites : that the regressions tell apart.
        """
        from filelock import FileLock
        from safetensors.numpy import load_file

        content = f"{digest} {sites} {closure.digest(__name__)}"
        kept = folder / f"relative-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        kept.mkdir(parents=True, exist_ok=True)
        path = kept / _TRANSFORM
        with FileLock(kept / "lock"):
            if not (kept / _RELATIVE).exists():
                _make(path, encoded, conditions, template, displacement, sites)
            # They are needed no more, also where a stop came just before this.
            (kept / _DISPLACEMENTS).unlink(missing_ok=True)
        # torch wants arrays that may be written.
        arrays = {name: np.array(values) for name, values in load_file(path).items()}
        transform = TemplateTransform.from_arrays(arrays)
        possible = channels.possible_brain(channels.brain(volume) for volume in encoded)
        return cls(transform, possible, encoded, np.load(kept / _RELATIVE, mmap_mode="r"))

    def residuals(self, prior: Prior, conditions: Sequence[Condition], work: Path) -> Residuals:
        """Writes what a denoiser of this prior is trained on to the folder `work`."""
        seen = self.encoded if prior.transform is None else self.relative
        return Residuals.of(prior, seen, conditions, work, relative=True)

    def residuals_of_others(
        self,
        prior: Prior,
        subjects: SubjectFiles,
        displacement: Callable[[int], Array],
        conditions: Sequence[Condition],
        work: Path,
    ) -> Residuals:
        """Writes what the same denoiser makes of subjects that it is not trained on to `work`.

        Parameters
        ----------
        displacement : gives the i-th subject's displacement to the template, (3, X, Y, Z).
        """

        def relative(i: int) -> Array:
            encoded = subjects.encoded_row(i)
            if prior.transform is None:
                return encoded
            return self.transform.to_relative(encoded, displacement(i))

        return Residuals.of_rows(prior, relative, conditions, work)


def _make(
    path: Path,
    encoded: Array,
    conditions: Sequence[Condition],
    template: GroupTemplate,
    displacement: Callable[[int], Array],
    sites: tuple[str, ...],
) -> None:
    """Writes the transform to `path` and the relative volumes beside it."""
    from safetensors.numpy import load_file, save_file

    count, shape = len(encoded), template.mask.shape
    displacements = row_cache.rows(
        path.parent / _DISPLACEMENTS,
        (count, AXES, *shape),
        displacement,
        "read displacements",
    )
    if not path.exists():
        scratch = path.parent / "moved.npy"
        moved: Array = np.lib.format.open_memmap(
            scratch, mode="w+", dtype=np.float32, shape=encoded.shape
        )
        fitted = TemplateTransform.fit(template, encoded, displacements, conditions, sites, moved)
        partial = path.with_suffix(".partial")
        save_file({k: np.ascontiguousarray(v) for k, v in fitted.arrays().items()}, partial)
        partial.replace(path)
        scratch.unlink()
    arrays = {name: np.array(values) for name, values in load_file(path).items()}
    transform = TemplateTransform.from_arrays(arrays)
    row_cache.rows(
        path.parent / _RELATIVE,
        (count, transform.channels, *shape),
        lambda i: transform.to_relative(encoded[i], np.array(displacements[i])),
        "relative to the template",
    )
