"""The derivatives of the stage `template`: the group template and the registered subjects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort import row_cache
from cohort.group_template import AXES, GroupTemplate
from cohort.regression import Array
from cohort.stage_output import hint
from cohort.template_estimator import FINER
from contracts import volume
from contracts.errors import UserError
from contracts.maps import MapSpec
from contracts.space import Space

_TEMPLATE, _SPACE = "template.safetensors", "space.json"
_DISPLACEMENTS = "displacements.npy"


@dataclass(frozen=True, slots=True)
class TemplateFiles:
    """The folder of the stage `template`.

    Layout: ``template.safetensors`` and ``space.json`` (what registration needs),
    ``tpl-group_param-<map>_dwimap.nii.gz`` (the template's maps, on a grid of half voxels),
    ``registration.tsv`` and ``qc.png``, and per subject ``sub-x/dwi/`` with its displacement and
    its maps registered to the template.

    Parameters
    ----------
    space : of the subjects, on whose grid displacements and registered maps are.
    """

    root: Path
    space: Space

    @classmethod
    def open(cls, root: Path) -> TemplateFiles:
        """Opens what `python -m cohort.template` wrote.

        Raises
        ------
        UserError : if it is not there.
        """
        path = root / _SPACE
        if not path.exists():
            raise UserError(f"no group template in {root}: {hint('template', root)}")
        return cls(root, Space.from_json(json.loads(path.read_text())))

    def template(self) -> GroupTemplate:
        """Reads the group template."""
        from safetensors.numpy import load_file

        # torch wants arrays that may be written.
        arrays = {name: np.array(v) for name, v in load_file(self.root / _TEMPLATE).items()}
        return GroupTemplate.from_arrays(arrays)

    def displacement(self, subject: str) -> Array:
        """Reads the displacement of a subject to the template, (3, X, Y, Z), in voxels.

        Raises
        ------
        UserError : if the subject was not registered.
        """
        path = self._displacement(subject)
        if not path.exists():
            raise UserError(
                f"{subject} is not registered, no {path}: {hint('template', self.root)}"
            )
        millimetres = np.moveaxis(volume.read_on(path, self.space), -1, 0)
        zooms = np.array(self.space.zooms, dtype=np.float32).reshape(3, 1, 1, 1)
        return np.ascontiguousarray(millimetres / zooms)

    def displacements(self, subjects: Sequence[str], folder: Path) -> Array:
        """Returns `displacement` of each subject, (n, 3, X, Y, Z): a memory map of a file that is
        written to `folder`."""
        shape = (len(subjects), AXES, *self.space.shape)
        return row_cache.rows(
            folder / _DISPLACEMENTS, shape, lambda i: self.displacement(subjects[i]),
            "read displacements",
        )  # fmt: skip

    def digest(self, subjects: Sequence[str]) -> str:
        """Returns a short hash of the template and of these subjects' displacements."""
        content = hashlib.sha256((self.root / _TEMPLATE).read_bytes())
        for subject in subjects:
            content.update(self._displacement(subject).read_bytes())
        return content.hexdigest()[:16]

    def write_template(self, template: GroupTemplate, maps: Sequence[MapSpec]) -> None:
        """Writes the template, for registration and for people."""
        from safetensors.numpy import save_file

        self.root.mkdir(parents=True, exist_ok=True)
        arrays = {k: np.ascontiguousarray(v) for k, v in template.arrays().items()}
        save_file(arrays, self.root / _TEMPLATE)
        fine = _template_space(self.space)
        for image, spec in zip(template.image, maps, strict=False):
            values = spec.clip(spec.from_network(image))
            path = self.root / f"tpl-group_param-{spec.name}_dwimap.nii.gz"
            volume.write(path, np.where(template.image[-1] > 0, values, np.float32(0)), fine)
        (self.root / _SPACE).write_text(json.dumps(self.space.to_json(), indent=2) + "\n")

    def write_subject(
        self, subject: str, displacement: Array, registered: Array, maps: Sequence[MapSpec]
    ) -> None:
        """Writes the displacement of a subject and its maps in the template's coordinates.

        Parameters
        ----------
        displacement : (3, X, Y, Z), in voxels.
        registered : (maps, X, Y, Z), physical units.
        """
        zooms = np.array(self.space.zooms, dtype=np.float32).reshape(3, 1, 1, 1)
        millimetres = np.moveaxis(displacement * zooms, 0, -1)
        volume.write(self._displacement(subject), millimetres, self.space)
        for values, spec in zip(registered, maps, strict=True):
            name = f"{subject}_space-group_model-tensor_param-{spec.name}_dwimap.nii.gz"
            volume.write(self._folder(subject) / name, values, self.space)

    def _folder(self, subject: str) -> Path:
        return self.root / subject / "dwi"

    def _displacement(self, subject: str) -> Path:
        return self._folder(subject) / f"{subject}_from-group_to-subject_mode-image_xfm.nii.gz"


def _template_space(space: Space) -> Space:
    """Returns the template's own grid: FINER steps per voxel, the corner voxels' centres shared."""
    affine: NDArray[np.float64] = space.matrix.copy()
    affine[:3, :3] /= FINER
    shape = [(n - 1) * FINER + 1 for n in space.shape]
    return Space.from_affine(f"{space.name}_template", shape, affine)
