"""Regional FA and MD of the template set to published norms by one smooth field each."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cohort import tensor
from cohort.simulation import acquisition, deformation
from cohort.simulation.person import AVERAGE, REFERENCE_AGE, Person, Tissue, measure, tissue
from cohort.simulation.tissue import ASYMMETRY, Template
from cohort.simulation.tracts import REGIONS
from contracts.condition import Condition
from contracts.space import Space

Array = NDArray[np.float32]

# Mean FA and mean signal diffusion (um2/ms) of 638 CamCAN subjects in JHU-ICBM regions, group
# averages of Henriques et al. 2023 (github.com/RafaelNH/CamCAN-dMRI-study, CC BY 4.0), with the
# rows of ROI_Metrics.csv read as regions x subjects. They are norms of the field, not data of
# CamCAN: no subject's value is used, and what is simulated from them is not CamCAN.
NORMS: dict[str, tuple[float, float]] = {
    "middle_cerebellar_peduncle": (0.556, 0.91),
    "pontine_crossing_tract": (0.472, 0.81),
    "genu_of_corpus_callosum": (0.632, 1.01),
    "body_of_corpus_callosum": (0.647, 1.13),
    "splenium_of_corpus_callosum": (0.713, 1.04),
    "fornix": (0.408, 2.01),
    "corticospinal_tract": (0.557, 0.87),
    "medial_lemniscus": (0.586, 0.88),
    "inferior_cerebellar_peduncle": (0.506, 0.91),
    "superior_cerebellar_peduncle": (0.613, 1.33),
    "cerebral_peduncle": (0.668, 0.98),
    "anterior_limb_of_internal_capsule": (0.528, 0.86),
    "posterior_limb_of_internal_capsule": (0.678, 0.80),
    "retrolenticular_part_of_internal_capsule": (0.607, 0.90),
    "anterior_corona_radiata": (0.417, 0.95),
    "superior_corona_radiata": (0.500, 0.87),
    "posterior_corona_radiata": (0.473, 0.97),
    "posterior_thalamic_radiation": (0.553, 0.98),
    "sagittal_stratum": (0.568, 1.01),
    "external_capsule": (0.406, 0.91),
    "cingulum_of_cingulate_gyrus": (0.504, 0.88),
    "cingulum_of_hippocampus": (0.354, 0.96),
    "fornix_crus_and_stria_terminalis": (0.485, 1.13),
    "superior_longitudinal_fasciculus": (0.510, 0.86),
    "superior_fronto_occipital_fasciculus": (0.418, 0.91),
    "uncinate_fasciculus": (0.508, 0.90),
    "tapetum": (0.454, 1.68),
}
# The signal's mean diffusion is a kurtosis estimate; a tensor's MD at b = 1000 is lower. The ratio
# brings the mean of regions without fluid to the 0.75e-3 mm2/s of white matter (Helenius 2002).
_TENSOR_SHARE = 0.85
# Regions beside the ventricles get their high MD from fluid in the voxel, not from the tissue.
_MAX_TISSUE_MD = 1.05
_ROUNDS = 6
_PILOTS = 2
_WIDTH_MM = 5.0
_KNEE, _CEILING = 0.60, 0.84
_LIMIT = 1.2  # of a log factor
_NEUTRAL = 0.15


def calibrate(template: Template, space: Space, max_bvalue: float) -> Template:
    """`template` with smooth FA and MD factors under which average subjects meet `NORMS`.

    Average subjects (reference age, random shape) are scanned and fitted; each region's factor
    moves towards norm over found; the factors are spread by a Gaussian of 5 mm. The left-right
    differences of `ASYMMETRY` come on top.
    """
    spread = _membership(template)
    pilots = [_pilot(template, space, number) for number in range(_PILOTS)]
    norms = np.array([NORMS[name] for name in REGIONS])
    norms[:, 1] = np.minimum(_TENSOR_SHARE * norms[:, 1], _MAX_TISSUE_MD)
    logs = np.zeros_like(norms)
    factors = np.ones((2, *template.space.shape), dtype=np.float32)
    for _ in range(_ROUNDS):
        found = _regional_means(pilots, factors, max_bvalue)
        logs = np.clip(logs + np.nan_to_num(np.log(norms / found)), -_LIMIT, _LIMIT)
        factors = np.exp(np.tensordot(logs.T, spread, axes=1)).astype(np.float32)
    sides = np.array([ASYMMETRY.get(name, 0.0) for name in REGIONS])
    x = template.space.centres()[..., 0]
    tilt = 1 - 0.5 * np.tanh(x / 6) * np.tensordot(sides, spread, axes=1)
    return dataclasses.replace(
        template,
        fa=_saturate(template.fa * factors[0] * tilt.astype(np.float32)),
        md=(template.md * factors[1]).astype(np.float32),
    )


def _saturate(fa: Array) -> Array:
    """Bends FA above a knee towards a ceiling: hardly any tissue of a brain goes beyond 0.8."""
    span = _CEILING - _KNEE
    bent = _KNEE + span * np.tanh((fa - _KNEE) / span)
    return np.where(fa > _KNEE, bent, fa).astype(np.float32)


def _membership(template: Template) -> NDArray[np.float64]:
    """Weight of each region at each voxel, (regions, X, Y, Z), summing to at most 1."""
    from scipy import ndimage

    width = _WIDTH_MM / template.space.zooms[0]
    soft = np.stack(
        [
            ndimage.gaussian_filter((template.labels == index).astype(np.float64), width)
            for index in range(1, len(REGIONS) + 1)
        ]
    )
    # A small region must weigh as much at its own place as a large one at its.
    soft /= np.maximum(soft.max(axis=(1, 2, 3), keepdims=True), 1e-9)
    share: NDArray[np.float64] = soft / (soft.sum(axis=0) + _NEUTRAL)
    return share


def _pilot(template: Template, space: Space, number: int) -> tuple[Person, Tissue]:
    """An average subject and the tissue of their regions."""
    person = Person(Condition(REFERENCE_AGE, "F"), acquisition.SITE_A, (0, number))
    body = tissue(template, space, person, AVERAGE)
    return person, body.part((body.labels > 0) & (body.labels <= len(REGIONS)))


def _regional_means(
    pilots: list[tuple[Person, Tissue]], factors: Array, max_bvalue: float
) -> NDArray[np.float64]:
    """FA and MD (um2/ms) of the pilots in each region under `factors`, (regions, 2).

    A region too small for the grid has no voxel: nan.
    """
    scheme = acquisition.protocol().up_to(max_bvalue)
    total = np.zeros((3, len(REGIONS)))
    for person, body in pilots:
        fa, md = (deformation.sample(factor, body.origin) for factor in factors)
        white = dataclasses.replace(
            body.white,
            fa=_saturate(body.white.fa * fa),
            md=body.white.md * md,
        )
        volumes = measure(dataclasses.replace(body, white=white), person, scheme)[:, None, None]
        every = np.ones((len(volumes), 1, 1), dtype=np.bool_)
        fitted = tensor.fit(volumes, scheme.bvals, scheme.bvecs, every, max_bvalue)
        for row, values in zip(total, (fitted.fa, fitted.md * 1000, every), strict=True):
            row += np.bincount(body.labels - 1, weights=values.ravel(), minlength=len(REGIONS))
    counts = np.where(total[2] > 0, total[2], np.nan)
    means: NDArray[np.float64] = (total[:2] / counts).T
    return means
