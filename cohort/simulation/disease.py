"""A simulated disease of known size and place: damaged tracts, wider ventricles, thinner cortex.

A factor on a whole map, as between scanners, cannot imitate it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The tracts that are damaged: those of the limbic system, and the splenium.
TRACTS = (
    "fornix",
    "fornix_crus_and_stria_terminalis",
    "cingulum_of_cingulate_gyrus",
    "cingulum_of_hippocampus",
    "uncinate_fasciculus",
    "splenium_of_corpus_callosum",
)
# Changes at severity 1: FA and MD of the damaged white matter, relative; the ventricles' wall
# outward; the share of cortex that is lost to sulcal fluid.
FA, MD = -0.28, 0.22
VENTRICLE_MM, SULCI = 1.2, 0.05
# The severity of patients: its standard deviation as a share of the mean, and its range.
_SPREAD, _RANGE = 0.35, (0.3, 1.9)
# Width of the edge of damage in mm.
_EDGE_MM = 2.0


def severity(effect: float, stream: np.random.Generator) -> float:
    """Draws the severity of a patient, which is `effect` on average; 0 where that is 0."""
    return effect * float(np.clip(1 + _SPREAD * stream.standard_normal(), *_RANGE))


def damage(labels: NDArray[np.int32], names: dict[int, str], zoom: float) -> NDArray[np.float32]:
    """Returns how much each voxel is damaged, (X, Y, Z), from 0 to 1 in the middle of the tracts.

    Parameters
    ----------
    labels : (X, Y, Z), keys of `names`.
    zoom : voxel edge in mm.
    """
    from scipy.ndimage import gaussian_filter

    chosen = [number for number, name in names.items() if name in TRACTS]
    inside = np.isin(labels, chosen).astype(np.float32)
    soft: NDArray[np.float32] = gaussian_filter(inside, _EDGE_MM / 2 / zoom)
    capped: NDArray[np.float32] = np.minimum(np.float32(1.5) * soft, np.float32(1))
    return capped
