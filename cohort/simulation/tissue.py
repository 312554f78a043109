"""The tissue template that simulated people are made from.

It holds tissue fractions, fibre directions, FA and MD of the tissue itself, and labels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort.simulation import deformation, disease
from cohort.simulation.anatomy import Anatomy, build_anatomy
from cohort.simulation.fibres import Fibres, build_fibres
from cohort.simulation.tracts import REGIONS
from contracts.space import Space, mni_space

Array = NDArray[np.float32]

# The template is fine enough for output at 2 mm; for coarser output it is smoothed.
TEMPLATE_MM = 2.0
_LOW_FA, _HIGH_FA = 0.13, 0.68
_WHITE_MD = 0.76  # um2/ms

# Left minus right FA over their mean. The anatomical template is symmetric; these are the
# differences that are reported most often (Thiebaut de Schotten et al. 2011; Gong et al. 2005;
# Takao et al. 2011).
ASYMMETRY: dict[str, float] = {
    "superior_longitudinal_fasciculus": 0.06,
    "cingulum_of_cingulate_gyrus": 0.08,
    "uncinate_fasciculus": -0.08,
    "anterior_limb_of_internal_capsule": -0.04,
}
# Petalia: the right half of the brain lies further forward (LeMay 1976), and the left ventricle
# is larger.
_TORQUE_MM = 1.2
_LEFT_VENTRICLE_MM = 0.3
_VENTRICLE_REACH_MM = 13.0


@dataclass(frozen=True, slots=True)
class TissueTemplate:
    """Arrays (X, Y, Z) on the grid of `space`, except those on `deformation.grid()`.

    Parameters
    ----------
    brain, white, grey, fluid, deep, thalamus, ventricle_mm : as in `Anatomy`.
    sulcal : closeness of tissue to the fluid around the brain, 0 to 1.
    direction, grey_direction : (X, Y, Z, 3) main direction of diffusion in white and grey matter.
    fa, md : FA and MD (um2/ms) of white matter itself at the reference age.
    labels : key of `LABELS`, 0 outside.
    torque : (X, Y, Z, 3) velocities in mm on `deformation.grid()` that make the brain asymmetric.
    ventricle_expansion : (X, Y, Z, 3) velocities in mm on `deformation.grid()` that move the
        ventricles' wall outward by 1 mm.
    damage : how much of the disease each voxel gets, see `cohort.simulation.disease`.
    """

    space: Space
    brain: NDArray[np.bool_]
    white: Array
    grey: Array
    fluid: Array
    deep: Array
    thalamus: Array
    ventricle_mm: Array
    sulcal: Array
    direction: Array
    grey_direction: Array
    fa: Array
    md: Array
    labels: NDArray[np.int32]
    torque: Array
    ventricle_expansion: Array
    damage: Array

    def save(self, path: Path) -> None:
        """Write all arrays to one `.npz` file; a stop in the middle leaves no half file."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del arrays["space"]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> TissueTemplate:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(space=mni_space(TEMPLATE_MM), **dict(arrays))


LABELS: dict[int, str] = dict(
    enumerate([*REGIONS, "other_white_matter", "cortex", "deep_grey_matter", "ventricle"], start=1)
)


def build_tissue_template(zoom_mm: float) -> TissueTemplate:
    """Build the template for output voxels of `zoom_mm`, not yet matched to regional norms."""
    from scipy import ndimage

    anatomy = build_anatomy(mni_space(TEMPLATE_MM))
    fibres = build_fibres(anatomy)
    white, grey, fluid = _with_thin_tracts(anatomy, fibres)
    labels = _labels(anatomy, fibres, white, grey)
    expansion = _ventricle_expansion(anatomy)
    outer = fluid * (anatomy.ventricle_mm > 8)
    sulcal = np.clip(1.6 * ndimage.gaussian_filter(outer, 3 / TEMPLATE_MM), 0, 1)

    # Linear interpolation from the template already smooths; this adds what the point spread of a
    # larger output voxel needs beyond that.
    width = max(zoom_mm - TEMPLATE_MM, 0) / 2 / TEMPLATE_MM

    def blurred(values: Array) -> Array:
        out: Array = ndimage.gaussian_filter(values, width) if width else values
        return out

    return TissueTemplate(
        space=anatomy.space,
        brain=anatomy.brain,
        white=blurred(white),
        grey=blurred(grey),
        fluid=blurred(fluid),
        deep=anatomy.deep,
        thalamus=anatomy.thalamus,
        ventricle_mm=anatomy.ventricle_mm,
        sulcal=sulcal.astype(np.float32),
        direction=fibres.direction,
        grey_direction=_grey_direction(anatomy),
        fa=_tissue_fa(anatomy, fibres),
        md=np.full(anatomy.space.shape, _WHITE_MD, dtype=np.float32),
        labels=labels,
        torque=_torque(expansion),
        ventricle_expansion=expansion,
        damage=disease.damage(labels, LABELS, TEMPLATE_MM),
    )


def _with_thin_tracts(anatomy: Anatomy, fibres: Fibres) -> tuple[Array, Array, Array]:
    """Return the fractions of white matter, grey matter and fluid with the thin tracts added.

    Their white matter replaces grey matter; the fluid stays as it is.
    """
    room = 1 - np.clip(1.5 * anatomy.fluid, 0, 1)
    target = np.clip(1.1 * fibres.thin_core, 0, 0.85) * room * (1 - 0.85 * anatomy.deep)
    white = np.clip(np.maximum(anatomy.white, target), 0, 1 - anatomy.fluid) * anatomy.brain
    grey = np.clip(1 - anatomy.fluid - white, 0, 1) * anatomy.brain
    return white.astype(np.float32), grey.astype(np.float32), anatomy.fluid


def _tissue_fa(anatomy: Anatomy, fibres: Fibres) -> Array:
    """Return the FA of white matter, higher where fibres are coherent and near a tract's core."""
    core = np.maximum(np.clip(1.3 * fibres.core, 0, 1), 0.5 * anatomy.white**2)
    coherent = fibres.coherence**1.1 * (0.15 + 0.85 * core)
    fa: Array = (_LOW_FA + (_HIGH_FA - _LOW_FA) * coherent).astype(np.float32)
    return fa


def _grey_direction(anatomy: Anatomy) -> Array:
    """Return the main direction of diffusion in grey matter.

    In cortex it runs across the cortical layers; in the thalamus it runs outward from the medial
    wall, as the thalamic radiations do.
    """
    from scipy import ndimage

    slope = np.stack(np.gradient(ndimage.gaussian_filter(anatomy.white, 2)), axis=-1)
    centres = anatomy.space.centres()
    hub = np.stack(
        [
            4 * np.sign(centres[..., 0]),
            np.full(anatomy.brain.shape, -16),
            np.zeros_like(slope[..., 0]),
        ],
        axis=-1,
    )
    outward = centres - hub
    slope /= np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
    outward /= np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-6)
    chosen = np.where(anatomy.thalamus[..., None] > 0.3, outward, slope)
    return chosen.astype(np.float32)


def _labels(anatomy: Anatomy, fibres: Fibres, white: Array, grey: Array) -> NDArray[np.int32]:
    number = {name: index for index, name in LABELS.items()}
    labels = np.where(white > 0.5, number["other_white_matter"], 0)
    labels[(grey > 0.5) & (anatomy.deep < 0.5)] = number["cortex"]
    labels[(grey > 0.5) & (anatomy.deep >= 0.5)] = number["deep_grey_matter"]
    tract = (fibres.labels > 0) & (white > 0.5)
    labels[tract] = fibres.labels[tract]
    labels[anatomy.ventricle] = number["ventricle"]
    return labels.astype(np.int32)


def _torque(expansion: Array) -> Array:
    """Return velocities that move the right half forward and widen the left ventricle."""
    x = deformation.grid().centres()[..., :1]
    forward = np.array([0.0, -_TORQUE_MM, 0.0]) * np.tanh(x / 20)
    ventricle = 0.5 * _LEFT_VENTRICLE_MM * np.tanh(x / 8) * expansion
    velocity: Array = (forward + ventricle).astype(np.float32)
    return velocity


def _ventricle_expansion(anatomy: Anatomy) -> Array:
    """Return velocities (X, Y, Z, 3) that move the ventricles' wall outward by 1 mm."""
    from scipy import ndimage

    distance = anatomy.ventricle_mm
    smooth = ndimage.gaussian_filter(distance, 4 / TEMPLATE_MM)
    normal = np.stack(np.gradient(smooth, TEMPLATE_MM), axis=-1)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 0.2)
    fade = np.exp(-np.maximum(distance, 0) / _VENTRICLE_REACH_MM)
    velocity = (normal * fade[..., None]).astype(np.float32)
    grid = deformation.grid()
    index = deformation.to_index(grid.centres().reshape(-1, 3), anatomy.space)
    return deformation.sample(velocity, index).reshape(*grid.shape, 3)
