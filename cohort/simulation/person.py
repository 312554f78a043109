"""One simulated subject: tissue of the template, deformed, aged and scanned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cohort.simulation import acquisition, deformation
from cohort.simulation.acquisition import Compartment, Protocol, Site
from cohort.simulation.tissue import Template
from cohort.tensor import TensorMaps
from contracts.condition import Condition
from contracts.space import Space

Array = NDArray[np.float32]

REFERENCE_AGE = 54.0
# Effects on tissue. FA falls by about 0.001 and MD rises by about 0.002 um2/ms per year, faster
# after 60 (Cox 2016; Henriques 2023); the sex effect is small (d about 0.2).
_FA_PER_YEAR = -0.0022  # relative
_MD_PER_YEAR = 0.0023  # um2/ms
_FA_OF_MEN = 0.008  # relative
_CORTEX_MD, _DEEP_MD = 0.79, 0.75  # um2/ms at the reference age
_CORTEX_FA, _DEEP_FA, _THALAMUS_FA = 0.16, 0.20, 0.34
_GREY_MD_PER_YEAR = 0.0009
_BULK_MM, _DETAIL_MM = 1.9, 0.9  # standard deviation of the random deformation


@dataclass(frozen=True, slots=True)
class Person:
    """Who is simulated: everything about them follows from this.

    Parameters
    ----------
    seed : of their random stream.
    """

    condition: Condition
    site: Site
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Traits:
    """What sets a person apart from others of their age and sex.

    Parameters
    ----------
    fa : relative offset of white-matter FA.
    md : offset of white-matter MD in um2/ms.
    ventricle_mm : offset of the ventricle wall.
    sulci : offset of the share of cortex lost to sulcal fluid.
    lesions : share of periventricular tissue that is damaged.
    """

    fa: float
    md: float
    ventricle_mm: float
    sulci: float
    lesions: float


AVERAGE = Traits(fa=0.0, md=0.0, ventricle_mm=0.0, sulci=0.0, lesions=0.0)


@dataclass(frozen=True, slots=True)
class Tissue:
    """A person's tissue in the n voxels of `mask` on the grid of `space`.

    Parameters
    ----------
    gain : (n,) receive sensitivity.
    labels : (n,) index into `template.LABELS`.
    origin : (3, n) template voxel coordinates.
    """

    space: Space
    mask: NDArray[np.bool_]
    white: Compartment
    grey: Compartment
    fluid: Array
    gain: Array
    labels: NDArray[np.int32]
    origin: Array

    def part(self, inside: NDArray[np.bool_]) -> Tissue:
        """The tissue of the voxels chosen by `inside` (n,)."""
        mask = np.zeros_like(self.mask)
        mask[self.mask] = inside
        return Tissue(
            space=self.space,
            mask=mask,
            white=self.white.part(inside),
            grey=self.grey.part(inside),
            fluid=self.fluid[inside],
            gain=self.gain[inside],
            labels=self.labels[inside],
            origin=self.origin[:, inside],
        )


def wear(age: float) -> float:
    """Years of ageing past `REFERENCE_AGE`, counted faster after 60; about 1 per year overall."""
    return 0.72 * (age - REFERENCE_AGE) + 0.018 * max(age - 60.0, 0.0) ** 2 - 3.0


def traits(person: Person) -> Traits:
    """Draw a person's traits; FA and MD offsets go against each other."""
    stream = np.random.default_rng((*person.seed, 0))
    integrity, own, wall, sulci, lesions = stream.standard_normal(5)
    late = max(person.condition.age - 50, 0) / 38
    return Traits(
        fa=0.032 * float(integrity),
        md=-0.020 * float(integrity) + 0.020 * float(own),
        ventricle_mm=0.8 * float(wall),
        sulci=0.035 * float(sulci),
        lesions=late**1.5 * max(0.0, 0.45 + 0.35 * float(lesions)),
    )


def tissue(template: Template, space: Space, person: Person, own: Traits) -> Tissue:
    """The tissue of a person with traits `own`, on `space`."""
    stream = np.random.default_rng((*person.seed, 1))
    age, late = person.condition.age, max(person.condition.age - 50, 0) / 38
    male = person.condition.sex == "M"
    years = wear(age)

    wall_mm = -1.3 + 1.8 * ((age - 18) / 70) + 2.0 * late**2 + 0.3 * male + own.ventricle_mm
    moved = _deform(template, stream, float(np.clip(wall_mm, -1.6, 6.5)))
    centres = space.centres().reshape(-1, 3)
    origin = deformation.to_index(moved.pull(centres), template.space)
    mask = deformation.sample(template.brain.astype(np.float32), origin) > 0.5
    points, origin = centres[mask], origin[:, mask]
    here = deformation.to_index(points, deformation.grid())

    def at(values: Array) -> Array:
        return deformation.sample(values, origin)

    def texture(fwhm_mm: float) -> Array:
        return deformation.sample(deformation.random_field(stream, fwhm_mm), here)

    white, grey, fluid = at(template.white), at(template.grey), at(template.fluid)
    share = np.clip(0.10 + 0.0032 * (age - 18) + 0.10 * late + own.sulci, 0, 0.6)
    lost = grey * at(template.sulcal) * np.float32(share)
    grey, fluid = grey - lost, fluid + lost

    # Frontal tissue ages more than occipital and infratentorial tissue.
    frailty = 1 + 0.45 * np.tanh((points[:, 1] + 15) / 40)
    near_wall = np.exp(-np.maximum(at(template.ventricle_mm), 0) / 6)
    damage = near_wall * np.float32(own.lesions)
    fa = at(template.fa) * (1 + own.fa + _FA_PER_YEAR * years * frailty + _FA_OF_MEN * male)
    fa *= (1 + 0.05 * texture(14) + 0.06 * texture(7)) * (1 - 0.35 * damage)
    md = at(template.md) * (1 + 0.02 * texture(14)) + own.md + _MD_PER_YEAR * years * frailty
    md *= 1 + 0.45 * damage

    deep, thalamus = at(template.deep), at(template.thalamus)
    grey_fa = _CORTEX_FA + deep * (_DEEP_FA - _CORTEX_FA) + thalamus * (_THALAMUS_FA - _DEEP_FA)
    grey_md = _CORTEX_MD + deep * (_DEEP_MD - _CORTEX_MD) + _GREY_MD_PER_YEAR * years
    grey_md *= 1 + 0.03 * texture(10)
    grey_fa *= 1 + 0.15 * texture(8)

    nearest = deformation.sample(template.direction, origin, order=0)
    across = deformation.sample(template.grey_direction, origin, order=0)
    site = person.site
    return Tissue(
        space=space,
        mask=mask.reshape(space.shape),
        white=Compartment(
            white,
            np.clip(site.fa_scale * fa, 0.05, 0.92).astype(np.float32),
            np.clip(site.md_scale * md, 0.3, 2.0).astype(np.float32),
            moved.to_subject(nearest, points),
        ),
        grey=Compartment(
            grey,
            np.clip(site.fa_scale * grey_fa, 0.02, 0.6).astype(np.float32),
            (site.md_scale * grey_md).astype(np.float32),
            moved.to_subject(across, points),
        ),
        fluid=fluid,
        gain=1 + np.float32(0.08) * texture(60),
        labels=deformation.sample_labels(template.labels, origin),
        origin=origin,
    )


def _deform(
    template: Template, stream: np.random.Generator, wall_mm: float
) -> deformation.Deformation:
    """A person's shape: random, with the ventricle's wall pushed outward by `wall_mm`."""
    bulk = [_BULK_MM * deformation.random_field(stream, 34) for _ in range(3)]
    detail = [_DETAIL_MM * deformation.random_field(stream, 16) for _ in range(3)]
    velocity = np.stack(bulk, axis=-1) + np.stack(detail, axis=-1)
    velocity = velocity + template.torque - np.float32(wall_mm) * template.push
    return deformation.exponential(velocity)


def scan(
    template: Template, space: Space, person: Person, scheme: Protocol
) -> tuple[Array, NDArray[np.bool_]]:
    """Diffusion-weighted volumes (X, Y, Z, V), zero outside the brain, and the brain mask."""
    body = tissue(template, space, person, traits(person))
    noisy = measure(body, person, scheme)
    volumes = np.zeros((*space.shape, len(scheme.bvals)), dtype=np.float32)
    volumes[body.mask] = noisy
    return volumes, body.mask


def measure(body: Tissue, person: Person, scheme: Protocol) -> Array:
    """Noisy signal (n, V) of a person's tissue."""
    clean = acquisition.signal(body.white, body.grey, body.fluid, body.gain, person.site, scheme)
    return acquisition.rician(clean, person.site, body.space.zooms[0], (*person.seed, 2))


def maps(
    template: Template, space: Space, person: Person, max_bvalue: float
) -> tuple[TensorMaps, NDArray[np.bool_]]:
    """Maps of a tensor fitted to the person's scan, and the brain mask."""
    from cohort import tensor

    scheme = acquisition.protocol().up_to(max_bvalue)
    volumes, mask = scan(template, space, person, scheme)
    return tensor.fit(volumes, scheme.bvals, scheme.bvecs, mask, max_bvalue), mask
