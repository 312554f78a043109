"""Small scans and ready maps on the working grid, for tests of the stage `derive`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cohort.derivatives import Participant as P
from cohort.derivatives import write_description, write_participants
from cohort.derive import DeriveSettings, derive
from contracts import volume
from contracts.space import mni_space
from tests.cohort import phantom

SPACE = mni_space(4)
FOUR = ("fa", "md", "ad", "rd")


def ball(radius: float) -> np.ndarray:
    return np.asarray((SPACE.centres() ** 2).sum(axis=-1) <= radius**2)


def diffusivities(seed: int) -> tuple[np.ndarray, ...]:
    """Directions, axial and radial diffusivity: anisotropic white matter in a grey shell."""
    along, axial, radial = phantom.field(SPACE.shape, seed)
    white = ball(40)
    return along, np.where(white, axial, 0.95e-3), np.where(white, radial, 0.8e-3)


def add_scan(root: Path, name: str, seed: int) -> Path:
    """A skull-stripped series on the working grid."""
    bvals, bvecs = phantom.gradients((1000, 8), (2000, 6))
    along, axial, radial = diffusivities(seed)
    values = phantom.signal(phantom.tensors(along, axial, radial), bvals, bvecs)
    values *= ball(60)[..., None]
    subject, *session = name.split("_")
    path = root.joinpath(subject, *session, "dwi", f"{name}_dwi.nii.gz")
    phantom.write_dwi(path, values, SPACE.matrix, bvals, bvecs, {"SkullStripped": True})
    return path


def small_cohort(root: Path, *names: str) -> DeriveSettings:
    for seed, name in enumerate(names):
        add_scan(root, name, seed)
    subjects = sorted({n.split("_")[0] for n in names})
    write_participants(
        root, [P(s, 30 + i, "FM"[i % 2], "base", "A") for i, s in enumerate(subjects)]
    )
    return DeriveSettings(str(root), 4, 1300)


def derive_all(settings: DeriveSettings, folder: Path) -> dict[str, str]:
    rows = derive(settings, folder / "out", folder / "work", folder / "Masks", workers=1)
    return {row.participant_id: row.status for row in rows}


def ready_maps(root: Path, md_factor: float = 1.0, kind: type = np.float32) -> DeriveSettings:
    """Ready maps on the working grid, with what comes beside them."""
    fa, md = phantom.fa_md(*diffusivities(0)[1:])
    inside = ball(60)
    stem = root / "sub-1" / "dwi" / f"sub-1_space-{SPACE.name}"
    for name, values in (("fa", fa), ("md", md * md_factor)):
        path = stem.with_name(f"{stem.name}_model-tensor_param-{name}_dwimap.nii.gz")
        phantom.write_map(path, (values * inside).astype(kind), SPACE.matrix)
    mask = stem.with_name(f"{stem.name}_desc-brain_mask.nii.gz")
    phantom.write_map(mask, inside.astype(np.uint8), SPACE.matrix)
    write_participants(root.parent, [P("sub-1", 50, "F", "target", "B")])
    write_description(root.parent, "Toy", True, "test")
    volume.write(root / "atlas_dseg.nii.gz", inside.astype(np.int16), SPACE)
    (root / "atlas_dseg.tsv").write_text("index\tname\n1\tball\n")
    return DeriveSettings(str(root), 4, 1300)
