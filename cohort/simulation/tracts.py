"""Tables of the tracts of the simulated white matter and of the regions on them.

The centre lines follow textbook anatomy (Wakana et al., NeuroImage 2007; Catani & Thiebaut de
Schotten, Cortex 2008). They are given in MNI mm for the right half of the brain (x > 0); the left
half mirrors them. A tract is a sheet of strands, interpolated between a few key strands, so that
a fan such as the corpus callosum is smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float, float]
Strand = tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Tract:
    """A bundle of fibres in the right half of the brain.

    Parameters
    ----------
    radius : standard deviation of the cross-section in mm.
    weight : weight of the fibres relative to those of crossing tracts.
    keys : key strands, each with the same number of points.
    strands : number of strands that are interpolated from the key strands.
    thin : whether the tissue maps miss the tract, because it is narrow or because its tissue
        looks like grey matter on T1w images.
    """

    radius: float
    weight: float
    keys: tuple[Strand, ...]
    strands: int = 1
    thin: bool = False


@dataclass(frozen=True, slots=True)
class Region:
    """A labelled section of a tract: what lies in a box around it.

    Parameters
    ----------
    tract : name of the tract in `TRACTS`.
    low, high : corners of the box in mm; x is the distance from the midline.
    reach : the section includes points within this many radii of the tract's centre line.
    """

    tract: str
    low: Point
    high: Point
    reach: float = 1.1


_FAR = 200.0

TRACTS: dict[str, Tract] = {
    "corpus_callosum": Tract(
        4.0,
        2.4,
        (
            ((0, 18, -4), (8, 23, -5), (14, 33, -8), (16, 46, -10)),
            ((0, 27, 3), (9, 31, 3), (17, 43, 2), (20, 57, 0)),
            ((0, 26, 12), (10, 30, 14), (18, 42, 18), (21, 54, 22)),
            ((0, 16, 20), (11, 18, 24), (20, 24, 36), (23, 28, 50)),
            ((0, 3, 24.5), (12, 3, 28.5), (22, 2, 42), (26, 2, 60)),
            ((0, -10, 26), (12, -11, 30), (22, -13, 44), (28, -16, 64)),
            ((0, -21, 25), (12, -23, 29), (24, -29, 42), (32, -34, 58)),
            ((0, -30, 21), (12, -34, 25), (25, -46, 36), (32, -58, 46)),
            ((0, -36, 16), (11, -41, 20), (25, -57, 25), (25, -76, 26)),
            ((0, -39, 10), (10, -44, 13), (23, -61, 12), (20, -84, 8)),
            ((0, -37, 6), (10, -42, 7), (24, -56, 3), (21, -80, -4)),
        ),
        strands=50,
    ),
    "tapetum": Tract(
        2.6,
        1.4,
        (((0, -37, 16), (15, -40, 20), (26, -45, 18), (31, -48, 9), (35, -45, -5)),),
        thin=True,
    ),
    "corticospinal": Tract(
        3.8,
        2.0,
        (
            ((8, -30, 72), (14, -26, 56), (21, -20, 36), (23.5, -19, 20), (21.5, -17, 9),
             (17, -16, -2), (12, -19, -14), (7, -24, -28), (5, -29, -40), (3.5, -36, -56)),
            ((28, -28, 66), (26, -24, 52), (24.5, -18, 36), (24.5, -17, 20), (22, -16, 9),
             (17, -15.5, -2), (12, -19, -14), (7, -24, -28), (5, -29, -40), (3.5, -36, -56)),
            ((52, -8, 38), (42, -10, 36), (31, -12, 30), (25, -14, 19), (21.5, -14, 9),
             (17, -15, -2), (12, -19, -14), (7, -24, -28), (5, -29, -40), (3.5, -36, -56)),
        ),
        strands=9,
        thin=True,
    ),
    "sensory_radiation": Tract(
        4.0,
        1.2,
        (
            ((15, -24, 10), (23, -29, 18), (24, -37, 32), (20, -44, 54), (14, -50, 68)),
            ((15, -24, 10), (24, -29, 18), (28, -38, 31), (32, -45, 48), (40, -46, 58)),
        ),
        strands=6,
    ),
    "anterior_radiation": Tract(
        3.3,
        1.8,
        (
            ((9, -10, 9), (14, -2, 7), (18, 7, 7), (21, 18, 12), (22, 34, 20), (24, 46, 28)),
            ((9, -10, 9), (14, -2, 5), (18, 7, 4), (21, 18, 5), (22, 34, 5), (24, 50, 4)),
        ),
        strands=5,
        thin=True,
    ),
    "superior_radiation": Tract(
        4.0,
        1.1,
        (
            ((16, -8, 8), (22, -4, 18), (25, 2, 30), (25, 8, 44), (24, 12, 58)),
            ((16, -4, 7), (20, 4, 16), (24, 14, 27), (26, 24, 38), (28, 32, 44)),
        ),
        strands=6,
    ),
    "frontal_crossing": Tract(
        4.0, 0.9, (((14, 26, 22), (24, 24, 22), (34, 24, 16), (44, 26, 12)),)
    ),
    "optic_radiation": Tract(
        3.6,
        1.8,
        (
            ((20, -26, 2), (29, -31, 3), (34, -44, 5), (31, -62, 10), (20, -84, 12)),
            ((20, -26, -3), (33, -27, -5), (38, -42, -2), (33, -62, 2), (20, -86, 2)),
        ),
        strands=4,
        thin=True,
    ),
    "inferior_fronto_occipital": Tract(
        3.0,
        1.5,
        (
            (
                (24, -88, 4), (34, -62, 3), (40, -40, -4), (37, -20, -8), (33, -4, -7),
                (31, 8, -6), (27, 26, -4), (24, 46, -2),
            ),
        ),
    ),
    "inferior_longitudinal": Tract(
        3.5,
        1.3,
        (
            ((26, -86, -6), (37, -62, -4), (41, -40, -8), (41, -20, -14), (40, -4, -26),
             (38, 8, -34)),
        ),
    ),
    "external_capsule": Tract(
        2.4,
        1.2,
        (
            ((33, -16, -6), (33, -4, -6), (31, 8, -6), (27, 19, -6)),
            ((31, -16, 14), (32, -4, 14), (30, 8, 13), (26, 19, 11)),
        ),
        strands=8,
        thin=True,
    ),
    "uncinate": Tract(
        3.0,
        1.6,
        (((40, 2, -34), (36.5, -1, -24), (34, 1, -15), (28, 15, -11), (18, 34, -13)),),
        thin=True,
    ),
    "superior_longitudinal": Tract(
        4.2,
        1.6,
        (
            ((44, 18, 22), (40, 4, 25), (37, -12, 27), (36.5, -30, 27), (38, -42, 23),
             (46, -50, 10), (52, -40, 0)),
            ((32, 24, 36), (32, 6, 38), (33, -14, 35), (34, -32, 34), (38, -46, 31), (44, -56, 30),
             (48, -62, 26)),
        ),
        strands=5,
    ),
    "superior_fronto_occipital": Tract(
        2.2, 1.3,
        (((20, -10, 20), (20.5, 0, 20), (20.5, 10, 19.5), (21, 18, 19)),),
        thin=True,
    ),
    "cingulum": Tract(
        2.6,
        2.4,
        (
            ((6, 28, -8), (8, 37, 6), (8.5, 31, 20), (9, 15, 30), (9, -6, 34.5), (9, -26, 34),
             (8.5, -41, 27), (11, -50, 15)),
        ),
    ),
    "cingulum_hippocampus": Tract(
        2.4, 1.2,
        (((11, -48, 14), (17, -44, 2), (21, -37, -9), (23, -26, -17), (24, -12, -24)),),
        thin=True,
    ),
    "fornix": Tract(
        2.0, 1.3,
        (((2, 1, -8), (1.6, -1, 4), (1.6, -8, 14), (3, -18, 18), (9, -29, 16)),),
        thin=True,
    ),
    "stria_terminalis": Tract(
        2.4, 1.3,
        (((10, -30, 16), (20, -36, 9), (28, -30, -3), (31, -20, -9), (29, -8, -13)),),
        thin=True,
    ),
    "middle_cerebellar_peduncle": Tract(
        3.6,
        2.0,
        (
            ((0, -18, -28), (12, -21, -29), (20, -34, -32), (25, -52, -34), (36, -66, -34)),
            ((0, -20, -38), (12, -24, -38), (19, -38, -38), (22, -54, -42), (20, -68, -46)),
            ((0, -18, -32), (12, -22, -33), (20, -36, -35), (23, -56, -36), (18, -72, -32)),
        ),
        strands=8,
        thin=True,
    ),
    "pontine_crossing": Tract(
        2.8, 2.4,
        (((0, -30, -34), (6, -30, -34), (11, -28, -33)),),
        thin=True,
    ),
    "inferior_cerebellar_peduncle": Tract(
        2.6, 1.5,
        (((6, -43, -58), (8, -42, -48), (9.5, -44, -38), (12, -51, -32), (16, -59, -30)),),
        thin=True,
    ),
    "superior_cerebellar_peduncle": Tract(
        2.4,
        1.6,
        (((3, -29, -14), (4.5, -36, -19), (5.5, -43, -25), (9, -51, -30), (15, -59, -33)),),
        thin=True,
    ),
    "tegmentum": Tract(
        6.0, 0.5,
        (((3, -36, -54), (4, -32, -40), (5, -30, -28), (7, -22, -12), (9, -17, -4)),),
        thin=True,
    ),
    "medial_lemniscus": Tract(
        2.4, 1.4,
        (((3, -40, -52), (4, -39, -40), (5.5, -36, -28), (8.5, -29, -13), (13, -22, -2)),),
        thin=True,
    ),
}  # fmt: skip

# The names are those of the JHU-ICBM atlas, so that the published means of its regions apply.
REGIONS: dict[str, Region] = {
    "genu_of_corpus_callosum": Region("corpus_callosum", (0, 16, -8), (16, 38, 26)),
    "body_of_corpus_callosum": Region("corpus_callosum", (0, -27, 8), (19, 16, 34)),
    "splenium_of_corpus_callosum": Region("corpus_callosum", (0, -56, 0), (22, -27, 34)),
    "tapetum": Region("tapetum", (24, -60, -8), (_FAR, -30, 22)),
    "cerebral_peduncle": Region("corticospinal", (0, -_FAR, -21), (_FAR, _FAR, -4)),
    "corticospinal_tract": Region("corticospinal", (0, -_FAR, -_FAR), (_FAR, _FAR, -21)),
    "posterior_limb_of_internal_capsule": Region("corticospinal", (0, -_FAR, -4), (_FAR, _FAR, 18)),
    "superior_corona_radiata": Region("corticospinal", (0, -_FAR, 18), (32, _FAR, 42)),
    "anterior_limb_of_internal_capsule": Region("anterior_radiation", (11, -4, -6), (_FAR, 17, 18)),
    "anterior_corona_radiata": Region(
        "anterior_radiation", (12, 17, -14), (_FAR, 42, 30), reach=1.8
    ),
    "retrolenticular_part_of_internal_capsule": Region(
        "optic_radiation", (22, -36, -10), (_FAR, -20, 14)
    ),
    "posterior_thalamic_radiation": Region("optic_radiation", (20, -74, -4), (_FAR, -36, 16)),
    "posterior_corona_radiata": Region(
        "sensory_radiation", (0, -_FAR, 20), (_FAR, _FAR, 42), reach=1.4
    ),
    "sagittal_stratum": Region("inferior_longitudinal", (32, -54, -22), (_FAR, -10, 2)),
    "external_capsule": Region("external_capsule", (0, -20, -16), (_FAR, 22, 16), reach=1.3),
    "uncinate_fasciculus": Region("uncinate", (26, -_FAR, -24), (_FAR, 10, -8), reach=1.4),
    "superior_longitudinal_fasciculus": Region(
        "superior_longitudinal", (30, -50, 12), (_FAR, 6, 36)
    ),
    "superior_fronto_occipital_fasciculus": Region(
        "superior_fronto_occipital", (0, -_FAR, -_FAR), (_FAR, _FAR, _FAR), reach=1.4
    ),
    "cingulum_of_cingulate_gyrus": Region("cingulum", (0, -46, 18), (_FAR, 32, _FAR), reach=1.3),
    "cingulum_of_hippocampus": Region(
        "cingulum_hippocampus", (0, -_FAR, -_FAR), (_FAR, _FAR, 0), reach=1.4
    ),
    "fornix": Region("fornix", (0, -_FAR, -_FAR), (_FAR, _FAR, _FAR), reach=1.4),
    "fornix_crus_and_stria_terminalis": Region(
        "stria_terminalis", (18, -_FAR, -_FAR), (_FAR, _FAR, _FAR), reach=1.4
    ),
    "middle_cerebellar_peduncle": Region(
        "middle_cerebellar_peduncle", (0, -60, -_FAR), (_FAR, _FAR, _FAR)
    ),
    "pontine_crossing_tract": Region(
        "pontine_crossing", (0, -_FAR, -_FAR), (_FAR, _FAR, _FAR), reach=1.3
    ),
    "inferior_cerebellar_peduncle": Region(
        "inferior_cerebellar_peduncle", (0, -_FAR, -_FAR), (_FAR, _FAR, _FAR), reach=1.3
    ),
    "superior_cerebellar_peduncle": Region(
        "superior_cerebellar_peduncle", (0, -_FAR, -_FAR), (_FAR, _FAR, _FAR), reach=1.4
    ),
    "medial_lemniscus": Region(
        "medial_lemniscus", (0, -_FAR, -46), (_FAR, _FAR, -8), reach=1.4
    ),
}  # fmt: skip
