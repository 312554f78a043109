"""What FA and MD leave open of a tensor's eigenvalues l1 >= l2 >= l3 >= 0, and what fills it.

AD = l1, MD = (l1 + l2 + l3) / 3 and RD = (l2 + l3) / 2, so that RD = (3 MD - AD) / 2. With
x = FA / sqrt(3 - 2 FA^2) the eigenvalues are MD (1 + 2 x cos(a + 2 pi k / 3)): MD is their level,
FA their spread, the angle a their shape (Ennis & Kindlmann 2006, whose mode is cos 3a): three
invariants that vary independently of each other. AD falls as the angle grows, from the stick
l2 = l3 at 0 to the disc l1 = l2 at 60 degrees, or to l3 = 0 where FA is too high for a disc.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_LARGEST = np.pi / 3
# Below this FA the shape is rounding.
_ROUND = 1e-4


def interval(fa: Array, md: Array) -> tuple[Array, Array]:
    """The least and the largest AD that FA in [0, 1] and MD >= 0 allow; in the unit of MD."""
    x = _spread(fa)
    flat = (3 + np.sqrt(np.maximum(12 * x**2 - 3, 0))) / 2  # l3 = 0
    low, high = md * np.where(x > 0.5, flat, 1 + x), md * (1 + 2 * x)
    return low.astype(np.float32), high.astype(np.float32)


def nearest(fa: Array, md: Array, ad: Array) -> Array:
    """The AD nearest to the given one that FA and MD allow."""
    inside: Array = np.clip(ad, *interval(fa, md))
    return inside


def shape(fa: Array, md: Array, ad: Array) -> Array:
    """The angle a over 60 degrees: 0 for a stick, 1 for a disc, 0.5 where all are equal."""
    known = (fa > _ROUND) & (md > 0)
    widest = np.where(known, 2 * _spread(fa) * md, 1)
    cosine = (ad.astype(np.float64) - md) / widest
    angle = np.arccos(np.clip(cosine, 0.5, 1)) / _LARGEST
    return np.where(known, angle, 0.5).astype(np.float32)


def axial(fa: Array, md: Array, shapes: Array) -> Array:
    """AD of a shape, the nearest possible one outside [0, 1]; inverse of `shape`."""
    ad = md * (1 + 2 * _spread(fa) * np.cos(_LARGEST * np.clip(shapes, 0, 1)))
    return nearest(fa, md, ad.astype(np.float32))


def radial(md: Array, ad: Array) -> Array:
    """RD, not below 0 where rounding would have it."""
    rd: Array = np.maximum((3 * md - ad) / 2, 0).astype(np.float32)
    return rd


def _spread(fa: Array) -> NDArray[np.float64]:
    # In double precision: the roots above magnify rounding.
    exact = fa.astype(np.float64)
    return np.asarray(exact / np.sqrt(3 - 2 * exact**2))
