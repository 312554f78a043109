"""The template that subjects are made from: anatomy, fibres, tissue FA and MD, and labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort.simulation import deformation
from cohort.simulation.anatomy import Anatomy, build_anatomy
from cohort.simulation.fibres import Fibres, build_fibres
from cohort.simulation.tracts import REGIONS
from contracts.space import Space, mni_space

Array = NDArray[np.float32]

# Fine enough for 2 mm output; coarser output reads it through a wider point spread.
TEMPLATE_MM = 2.0
_LOW_FA, _HIGH_FA = 0.13, 0.68
_WHITE_MD = 0.76  # um2/ms

# Relative left-minus-right difference of FA over their mean. The template is symmetric; these are
# the ones most often reported (Thiebaut de Schotten 2011; Gong 2005; Takao 2011).
ASYMMETRY: dict[str, float] = {
    "superior_longitudinal_fasciculus": 0.06,
    "cingulum_of_cingulate_gyrus": 0.08,
    "uncinate_fasciculus": -0.08,
    "anterior_limb_of_internal_capsule": -0.04,
}
# Petalia: the right half lies further forward (LeMay 1976); the left ventricle is larger.
_TORQUE_MM = 1.2
_LEFT_VENTRICLE_MM = 0.3
_VENTRICLE_REACH_MM = 13.0


@dataclass(frozen=True, slots=True)
class Template:
    """Arrays (X, Y, Z) on the grid of `space`, but for those on `deformation.grid()`.

    Parameters
    ----------
    brain, white, grey, fluid, deep, thalamus, ventricle_mm : as in `Anatomy`.
    sulcal : how close tissue is to outer fluid, 0 to 1.
    direction, grey_direction : (X, Y, Z, 3) main direction of diffusion in each tissue.
    fa, md : of white matter itself at the reference age; md in um2/ms.
    labels : index into `LABELS`, 0 outside.
    torque, push : (X, Y, Z, 3) velocities in mm on `deformation.grid()`: the brain's torque, and
        an outward move of the ventricle's wall by 1 mm.
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
    push: Array

    def save(self, path: Path) -> None:
        """Write all arrays as one `.npz`."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del arrays["space"]
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **arrays)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Template:
        """Inverse of `save`."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(space=mni_space(TEMPLATE_MM), **dict(arrays))


LABELS: dict[int, str] = dict(
    enumerate([*REGIONS, "other_white_matter", "cortex", "deep_grey_matter", "ventricle"], start=1)
)


def build_template(zoom_mm: float) -> Template:
    """The template for output voxels of `zoom_mm`, before calibration."""
    from scipy import ndimage

    anatomy = build_anatomy(mni_space(TEMPLATE_MM))
    fibres = build_fibres(anatomy)
    white, grey, fluid = _with_thin_tracts(anatomy, fibres)
    labels = _labels(anatomy, fibres, white, grey)
    push = _push(anatomy)
    outer = fluid * (anatomy.ventricle_mm > 8)
    sulcal = np.clip(1.6 * ndimage.gaussian_filter(outer, 3 / TEMPLATE_MM), 0, 1)

    # What is left of the point spread of a bigger voxel after linear interpolation.
    width = max(zoom_mm - TEMPLATE_MM, 0) / 2 / TEMPLATE_MM

    def blurred(values: Array) -> Array:
        out: Array = ndimage.gaussian_filter(values, width) if width else values
        return out

    return Template(
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
        torque=_torque(push),
        push=push,
    )


def _with_thin_tracts(anatomy: Anatomy, fibres: Fibres) -> tuple[Array, Array, Array]:
    """Tissue fractions with the drawn tracts' white matter taken from the grey, not the fluid."""
    room = 1 - np.clip(1.5 * anatomy.fluid, 0, 1)
    target = np.clip(1.1 * fibres.drawn, 0, 0.85) * room * (1 - 0.85 * anatomy.deep)
    white = np.clip(np.maximum(anatomy.white, target), 0, 1 - anatomy.fluid) * anatomy.brain
    grey = np.clip(1 - anatomy.fluid - white, 0, 1) * anatomy.brain
    return white.astype(np.float32), grey.astype(np.float32), anatomy.fluid


def _tissue_fa(anatomy: Anatomy, fibres: Fibres) -> Array:
    """White-matter FA from fibre coherence and nearness to the core of a tract or gyral stalk."""
    core = np.maximum(np.clip(1.3 * fibres.core, 0, 1), 0.5 * anatomy.white**2)
    coherent = fibres.coherence**1.1 * (0.15 + 0.85 * core)
    fa: Array = (_LOW_FA + (_HIGH_FA - _LOW_FA) * coherent).astype(np.float32)
    return fa


def _grey_direction(anatomy: Anatomy) -> Array:
    """Across the cortex; in the thalamus outward from its medial wall, as its radiations run."""
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


def _torque(push: Array) -> Array:
    x = deformation.grid().centres()[..., :1]
    forward = np.array([0.0, -_TORQUE_MM, 0.0]) * np.tanh(x / 20)
    ventricle = 0.5 * _LEFT_VENTRICLE_MM * np.tanh(x / 8) * push
    velocity: Array = (forward + ventricle).astype(np.float32)
    return velocity


def _push(anatomy: Anatomy) -> Array:
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
