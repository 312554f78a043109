"""Regional FA and MD of the tissue template, matched to published group means."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from cohort import tensor
from cohort.simulation import acquisition, deformation
from cohort.simulation.person import (
    AVERAGE,
    REFERENCE_AGE,
    Person,
    PersonTissue,
    measure,
    person_tissue,
)
from cohort.simulation.tissue import ASYMMETRY, TissueTemplate
from cohort.simulation.tracts import REGIONS
from contracts.condition import Condition
from contracts.space import Space

Array = NDArray[np.float32]

# Mean FA and mean signal diffusion (um2/ms) of 638 CamCAN subjects in JHU-ICBM regions. They are
# the group averages of Henriques et al. 2023 (github.com/RafaelNH/CamCAN-dMRI-study, CC BY 4.0),
# with the rows of ROI_Metrics.csv read as regions x subjects. These are published norms and not
# data of CamCAN: no subject's value is used, and what is simulated from them is not CamCAN.
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
# Mean signal diffusion is a kurtosis estimate, and the MD of a tensor at b = 1000 is lower. This
# ratio brings the mean of regions without fluid to the 0.75e-3 mm2/s of white matter (Helenius et
# al., AJNR 2002).
_TENSOR_SHARE = 0.85
# Regions beside the ventricles have a high MD because of fluid in the voxel, not of the tissue.
_MAX_TISSUE_MD = 1.05
_ITERATIONS = 6
# Number of average people that are scanned in each iteration.
_PEOPLE = 2
_WIDTH_MM = 5.0
_KNEE, _CEILING = 0.60, 0.84
# Largest absolute logarithm of a region's factor.
_MAX_LOG_FACTOR = 1.2
# Weight of the factor 1 beside the regions' weights, which fades the factors outside regions.
_NEUTRAL = 0.15


def match_norms(template: TissueTemplate, space: Space, max_bvalue: float) -> TissueTemplate:
    """Multiply FA and MD of a template by smooth fields that bring average people near `NORMS`.

    People of the reference age and of random shape are scanned and fitted. The factor of each
    region is multiplied by the norm over the mean that was found, and the regions' factors are
    smoothed to one field with a Gaussian of 5 mm; this is repeated. The left-right differences
    of `ASYMMETRY` are applied at the end.

    Parameters
    ----------
    space : grid of the simulated scans.
    max_bvalue : highest b-value of the tensor fit, in s/mm2.
    """
    weights = _region_weights(template)
    people = [_average_person(template, space, number) for number in range(_PEOPLE)]
    norms = np.array([NORMS[name] for name in REGIONS])
    norms[:, 1] = np.minimum(_TENSOR_SHARE * norms[:, 1], _MAX_TISSUE_MD)
    logs = np.zeros_like(norms)
    factors = np.ones((2, *template.space.shape), dtype=np.float32)
    for _ in range(_ITERATIONS):
        found = _regional_means(people, factors, max_bvalue)
        logs = logs + np.nan_to_num(np.log(norms / found))
        logs = np.clip(logs, -_MAX_LOG_FACTOR, _MAX_LOG_FACTOR)
        factors = np.exp(np.tensordot(logs.T, weights, axes=1)).astype(np.float32)
    sides = np.array([ASYMMETRY.get(name, 0.0) for name in REGIONS])
    x = template.space.centres()[..., 0]
    tilt = 1 - 0.5 * np.tanh(x / 6) * np.tensordot(sides, weights, axes=1)
    return dataclasses.replace(
        template,
        fa=_saturate(template.fa * factors[0] * tilt.astype(np.float32)),
        md=(template.md * factors[1]).astype(np.float32),
    )


def _saturate(fa: Array) -> Array:
    """Compress FA above 0.6 so that it stays below 0.84.

    Hardly any tissue of a brain has an FA above 0.8.
    """
    span = _CEILING - _KNEE
    bent = _KNEE + span * np.tanh((fa - _KNEE) / span)
    return np.where(fa > _KNEE, bent, fa).astype(np.float32)


def _region_weights(template: TissueTemplate) -> NDArray[np.float64]:
    """Return the weight of each region at each voxel, (regions, X, Y, Z).

    The weights at a voxel sum to at most 1.
    """
    from scipy import ndimage

    width = _WIDTH_MM / template.space.zooms[0]
    soft = np.stack(
        [
            ndimage.gaussian_filter((template.labels == index).astype(np.float64), width)
            for index in range(1, len(REGIONS) + 1)
        ]
    )
    # A small region must weigh as much at its own place as a large region does at its place.
    soft /= np.maximum(soft.max(axis=(1, 2, 3), keepdims=True), 1e-9)
    share: NDArray[np.float64] = soft / (soft.sum(axis=0) + _NEUTRAL)
    return share


def _average_person(
    template: TissueTemplate, space: Space, number: int
) -> tuple[Person, PersonTissue]:
    """Return a person with average traits, and their tissue in the regions of `REGIONS`."""
    person = Person(Condition(REFERENCE_AGE, "F"), acquisition.SCANNER_A, (0, number))
    tissue = person_tissue(template, space, person, AVERAGE)
    return person, tissue.select((tissue.labels > 0) & (tissue.labels <= len(REGIONS)))


def _regional_means(
    people: list[tuple[Person, PersonTissue]], factors: Array, max_bvalue: float
) -> NDArray[np.float64]:
    """Return the mean FA and MD (um2/ms) of people in each region, (regions, 2).

    A region that is too small for the grid has no voxel; its means are nan.

    Parameters
    ----------
    factors : (2, X, Y, Z) factors on FA and MD of the template's white matter.
    """
    scheme = acquisition.camcan_scheme().up_to(max_bvalue)
    total = np.zeros((3, len(REGIONS)))
    for person, tissue in people:
        fa, md = (deformation.sample(factor, tissue.origin) for factor in factors)
        white = dataclasses.replace(
            tissue.white,
            fa=_saturate(tissue.white.fa * fa),
            md=tissue.white.md * md,
        )
        volumes = measure(dataclasses.replace(tissue, white=white), person, scheme)[:, None, None]
        every = np.ones((len(volumes), 1, 1), dtype=np.bool_)
        fitted = tensor.fit(volumes, scheme.bvals, scheme.bvecs, every, max_bvalue)
        for row, values in zip(total, (fitted.fa, fitted.md * 1000, every), strict=True):
            row += np.bincount(tissue.labels - 1, weights=values.ravel(), minlength=len(REGIONS))
    counts = np.where(total[2] > 0, total[2], np.nan)
    means: NDArray[np.float64] = (total[:2] / counts).T
    return means
