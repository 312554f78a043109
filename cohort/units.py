"""Units of ready FA, MD and AD maps, found from the values because files do not tell them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.errors import UserError
from contracts.maps import FA, MD

# Range of the median MD of a brain in mm2/s. It is 0.7e-3 in tissue and larger where the mask holds
# much cerebrospinal fluid.
_MD_MEDIAN = (0.3e-3, 2.5e-3)
_MD_UNITS = (("mm^2/s", 1.0, 0.05), ("um^2/ms", 1e-3, 1e2), ("1e-6 mm^2/s", 1e-6, np.inf))
# Range of the 99th percentile of FA in a brain mask.
_FA_HIGH = (0.3, 1.25)


class Physical(NamedTuple):
    """Maps in physical units, and the units that the files were in.

    Parameters
    ----------
    fa, md : (X, Y, Z) FA in [0, 1] and MD in mm2/s.
    known : (X, Y, Z) whether both are finite.
    fa_unit, md_unit : units of the files.
    md_factor : factor from the file's unit of MD to mm2/s.
    """

    fa: NDArray[np.float32]
    md: NDArray[np.float32]
    known: NDArray[np.bool_]
    fa_unit: str
    md_unit: str
    md_factor: float


def to_physical(
    fa: NDArray[np.float32], md: NDArray[np.float32], mask: NDArray[np.bool_]
) -> Physical:
    """Convert FA and MD to [0, 1] and mm2/s.

    Scanners store FA x 1000 and MD in 1e-6 mm2/s. DSI Studio writes MD in um2/ms; FSL, MRtrix and
    dipy write it in mm2/s. FA above 1 is clipped: FSL writes up to 1.2247 = sqrt(3/2) where an
    eigenvalue is negative.

    Parameters
    ----------
    fa, md, mask : (X, Y, Z); the units are judged inside the mask.

    Raises
    ------
    UserError : if the values fit no known unit.
    """
    known = np.isfinite(fa) & np.isfinite(md)
    inside = mask & known & (md > 0)
    if not inside.any():
        raise UserError("FA and MD have no finite values inside the mask: wrong files?")
    median = float(np.median(md[inside]))
    md_unit, md_factor = next((unit, factor) for unit, factor, top in _MD_UNITS if median < top)
    if not _MD_MEDIAN[0] <= median * md_factor <= _MD_MEDIAN[1]:
        raise UserError(
            f"median MD {median:g} fits no unit (mm^2/s, um^2/ms, 1e-6 mm^2/s) of a brain: wrong "
            "files?"
        )
    high = float(np.percentile(fa[inside], 99))
    fa_unit, fa_factor = ("1", 1.0) if high <= 2 else ("1/1000", 1e-3)
    if not _FA_HIGH[0] <= high * fa_factor <= _FA_HIGH[1]:
        raise UserError(
            f"99th percentile of FA is {high:g}: expected about 0.8 or 800; wrong files?"
        )
    return Physical(
        fa=FA.clip(np.where(known, fa, 0).astype(np.float32) * np.float32(fa_factor)),
        md=MD.clip(np.where(known, md, 0).astype(np.float32) * np.float32(md_factor)),
        known=known,
        fa_unit=fa_unit,
        md_unit=md_unit,
        md_factor=md_factor,
    )


def axial(ad: NDArray[np.float32], found: Physical, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Convert AD to mm2/s, from the unit of the MD beside it.

    Parameters
    ----------
    ad, mask : (X, Y, Z).

    Raises
    ------
    UserError : if most of it is not between MD and 3 MD, as the largest eigenvalue must be.
    """
    values = np.nan_to_num(ad, posinf=0, neginf=0) * np.float32(found.md_factor)
    inside = mask & found.known & (found.md > 0)
    ratio = float(np.median(values[inside] / found.md[inside]))
    if not 1 <= ratio <= 3:
        raise UserError(
            f"median AD / MD is {ratio:g}: expected 1 to 3, both in {found.md_unit}; is it the "
            "largest eigenvalue?"
        )
    return values.astype(np.float32)
