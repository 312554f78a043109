"""One simulated person: the template's tissue, deformed, aged and scanned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort import tensor
from cohort.simulation import acquisition, deformation, disease
from cohort.simulation.acquisition import Compartment, GradientScheme, Scanner
from cohort.simulation.tissue import TissueTemplate
from cohort.tensor import TensorMaps
from contracts.condition import Condition
from contracts.space import Space

Array = NDArray[np.float32]

REFERENCE_AGE = 54.0
# Effects on tissue. FA falls by about 0.001 and MD rises by about 0.002 um2/ms per year, faster
# after 60 (Cox et al. 2016; Henriques et al. 2023). The effect of sex is small (d about 0.2).
_FA_PER_YEAR = -0.0022  # relative to FA
_MD_PER_YEAR = 0.0023  # um2/ms
_FA_OF_MEN = 0.008  # relative to FA
_CORTEX_MD, _DEEP_MD = 0.79, 0.75  # um2/ms at the reference age
_CORTEX_FA, _DEEP_FA, _THALAMUS_FA = 0.16, 0.20, 0.34
_GREY_MD_PER_YEAR = 0.0009  # um2/ms
# Standard deviations of the coarse and the fine part of the random deformation.
_COARSE_MM, _FINE_MM = 1.9, 0.9


@dataclass(frozen=True, slots=True)
class Person:
    """A simulated person; their scan follows from these values alone.

    Parameters
    ----------
    condition : age and sex.
    scanner : the scanner that they are scanned with.
    seed : seed of their random streams.
    disease : mean severity of patients like them; 0 is a healthy person.
    """

    condition: Condition
    scanner: Scanner
    seed: tuple[int, ...]
    disease: float = 0.0


@dataclass(frozen=True, slots=True)
class Traits:
    """How a person differs from the average of their age and sex.

    Parameters
    ----------
    fa : relative offset of white-matter FA.
    md : offset of white-matter MD in um2/ms.
    ventricle_mm : outward offset of the ventricles' wall.
    sulci : offset of the share of cortex that is replaced by sulcal fluid.
    lesions : degree of damage in periventricular white matter.
    severity : of the disease, see `cohort.simulation.disease`.
    """

    fa: float
    md: float
    ventricle_mm: float
    sulci: float
    lesions: float
    severity: float = 0.0


AVERAGE = Traits(fa=0.0, md=0.0, ventricle_mm=0.0, sulci=0.0, lesions=0.0)


@dataclass(frozen=True, slots=True)
class PersonTissue:
    """A person's tissue in the n voxels of a brain mask.

    Parameters
    ----------
    mask : (X, Y, Z) brain mask on the grid of `space`.
    white, grey : the two tissue compartments.
    fluid : (n,) share of the voxel that is filled with fluid.
    gain : (n,) receive sensitivity of the coil, about 1.
    labels : (n,) key of `tissue.LABELS`.
    origin : (3, n) voxel coordinates in the template.
    """

    space: Space
    mask: NDArray[np.bool_]
    white: Compartment
    grey: Compartment
    fluid: Array
    gain: Array
    labels: NDArray[np.int32]
    origin: Array

    def select(self, inside: NDArray[np.bool_]) -> PersonTissue:
        """Return the tissue of the voxels where `inside` (n,) is true."""
        mask = np.zeros_like(self.mask)
        mask[self.mask] = inside
        return PersonTissue(
            space=self.space,
            mask=mask,
            white=self.white.select(inside),
            grey=self.grey.select(inside),
            fluid=self.fluid[inside],
            gain=self.gain[inside],
            labels=self.labels[inside],
            origin=self.origin[:, inside],
        )


def effective_years(age: float) -> float:
    """Return the years of ageing beyond an age of about 58; those after 60 count for more.

    Over adult life the result rises by about 1 per year.
    """
    return 0.72 * (age - REFERENCE_AGE) + 0.018 * max(age - 60.0, 0.0) ** 2 - 3.0


def draw_traits(person: Person) -> Traits:
    """Draw a person's traits; where FA is higher, MD tends to be lower."""
    stream = np.random.default_rng((*person.seed, 0))
    integrity, own, wall, sulci, lesions = stream.standard_normal(5)
    late = max(person.condition.age - 50, 0) / 38
    return Traits(
        fa=0.032 * float(integrity),
        md=-0.020 * float(integrity) + 0.020 * float(own),
        ventricle_mm=0.8 * float(wall),
        sulci=0.035 * float(sulci),
        lesions=late**1.5 * max(0.0, 0.45 + 0.35 * float(lesions)),
        severity=disease.severity(person.disease, np.random.default_rng((*person.seed, 3))),
    )


def person_tissue(
    template: TissueTemplate, space: Space, person: Person, traits: Traits
) -> PersonTissue:
    """Return the tissue of a person with these traits on the grid of `space`.

    The shape and the texture of the tissue are drawn from the person's random stream; age, sex,
    scanner and traits change it from there.
    """
    stream = np.random.default_rng((*person.seed, 1))
    age, late = person.condition.age, max(person.condition.age - 50, 0) / 38
    male = person.condition.sex == "M"
    years = effective_years(age)

    wall_mm = -1.3 + 1.8 * ((age - 18) / 70) + 2.0 * late**2 + 0.3 * male + traits.ventricle_mm
    wall_mm += disease.VENTRICLE_MM * traits.severity
    shape = _random_shape(template, stream, float(np.clip(wall_mm, -1.6, 6.5)))
    centres = space.centres().reshape(-1, 3)
    origin = deformation.to_index(shape.to_template(centres), template.space)
    mask = deformation.sample(template.brain.astype(np.float32), origin) > 0.5
    points, origin = centres[mask], origin[:, mask]
    field_index = deformation.to_index(points, deformation.grid())

    def at(values: Array) -> Array:
        return deformation.sample(values, origin)

    def texture(fwhm_mm: float) -> Array:
        return deformation.sample(deformation.random_field(stream, fwhm_mm), field_index)

    white, grey, fluid = at(template.white), at(template.grey), at(template.fluid)
    thinning = traits.sulci + disease.SULCI * traits.severity
    share = np.clip(0.10 + 0.0032 * (age - 18) + 0.10 * late + thinning, 0, 0.6)
    lost = grey * at(template.sulcal) * np.float32(share)
    grey, fluid = grey - lost, fluid + lost

    # Frontal tissue ages more than occipital and infratentorial tissue.
    frailty = 1 + 0.45 * np.tanh((points[:, 1] + 15) / 40)
    near_wall = np.exp(-np.maximum(at(template.ventricle_mm), 0) / 6)
    damage = near_wall * np.float32(traits.lesions)
    fa = at(template.fa) * (1 + traits.fa + _FA_PER_YEAR * years * frailty + _FA_OF_MEN * male)
    fa *= (1 + 0.05 * texture(14) + 0.06 * texture(7)) * (1 - 0.35 * damage)
    md = at(template.md) * (1 + 0.02 * texture(14)) + traits.md + _MD_PER_YEAR * years * frailty
    md *= 1 + 0.45 * damage
    diseased = at(template.damage) * np.float32(traits.severity)
    fa, md = fa * (1 + disease.FA * diseased), md * (1 + disease.MD * diseased)

    deep, thalamus = at(template.deep), at(template.thalamus)
    grey_fa = _CORTEX_FA + deep * (_DEEP_FA - _CORTEX_FA) + thalamus * (_THALAMUS_FA - _DEEP_FA)
    grey_md = _CORTEX_MD + deep * (_DEEP_MD - _CORTEX_MD) + _GREY_MD_PER_YEAR * years
    grey_md *= 1 + 0.03 * texture(10)
    grey_fa *= 1 + 0.15 * texture(8)

    white_direction = deformation.sample(template.direction, origin, order=0)
    grey_direction = deformation.sample(template.grey_direction, origin, order=0)
    scanner = person.scanner
    return PersonTissue(
        space=space,
        mask=mask.reshape(space.shape),
        white=Compartment(
            white,
            np.clip(scanner.fa_scale * fa, 0.05, 0.92).astype(np.float32),
            np.clip(scanner.md_scale * md, 0.3, 2.0).astype(np.float32),
            shape.reorient(white_direction, points),
        ),
        grey=Compartment(
            grey,
            np.clip(scanner.fa_scale * grey_fa, 0.02, 0.6).astype(np.float32),
            (scanner.md_scale * grey_md).astype(np.float32),
            shape.reorient(grey_direction, points),
        ),
        fluid=fluid,
        gain=1 + np.float32(0.08) * texture(60),
        labels=deformation.sample_labels(template.labels, origin),
        origin=origin,
    )


def _random_shape(
    template: TissueTemplate, stream: np.random.Generator, wall_mm: float
) -> deformation.Deformation:
    """Draw the shape of a brain whose ventricles' wall lies `wall_mm` further outward."""
    coarse = [_COARSE_MM * deformation.random_field(stream, 34) for _ in range(3)]
    fine = [_FINE_MM * deformation.random_field(stream, 16) for _ in range(3)]
    velocity = np.stack(coarse, axis=-1) + np.stack(fine, axis=-1)
    velocity = velocity + template.torque - np.float32(wall_mm) * template.ventricle_expansion
    return deformation.exponential(velocity)


def scan(
    template: TissueTemplate, space: Space, person: Person, scheme: GradientScheme
) -> tuple[Array, NDArray[np.bool_]]:
    """Simulate a DWI series of a person.

    Returns
    -------
    (X, Y, Z, V) signal, zero outside the brain, and the (X, Y, Z) brain mask.
    """
    tissue = person_tissue(template, space, person, draw_traits(person))
    volumes = np.zeros((*space.shape, len(scheme.bvals)), dtype=np.float32)
    volumes[tissue.mask] = measure(tissue, person, scheme)
    return volumes, tissue.mask


def measure(tissue: PersonTissue, person: Person, scheme: GradientScheme) -> Array:
    """Return the noisy signal (n, V) of the n voxels of a person's tissue."""
    clean = acquisition.signal(
        tissue.white, tissue.grey, tissue.fluid, tissue.gain, person.scanner, scheme
    )
    return acquisition.rician(clean, person.scanner, tissue.space.zooms[0], (*person.seed, 2))


def maps(
    template: TissueTemplate, space: Space, person: Person, max_bvalue: float
) -> tuple[TensorMaps, NDArray[np.bool_]]:
    """Simulate a scan of a person and fit the tensor to it.

    Parameters
    ----------
    max_bvalue : highest b-value of the fit, in s/mm2.

    Returns
    -------
    Maps on the grid of `space`, and the (X, Y, Z) brain mask.
    """
    scheme = acquisition.camcan_scheme().up_to(max_bvalue)
    volumes, mask = scan(template, space, person, scheme)
    return tensor.fit(volumes, scheme.bvals, scheme.bvecs, mask, max_bvalue), mask
