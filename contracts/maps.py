"""The diffusion tensor maps we handle, and the one fixed transform of each to network range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.errors import UserError

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MapSpec:
    """One scalar map of the tensor.

    Parameters
    ----------
    name : BIDS `param-` label, lower case.
    label : how people write it.
    unit : BIDS unit; "" for a number without unit.
    scale : a physical value divided by this is the network's value. Fixed for ever: a
        per-subject scaling would lose the units (and with them every regional mean).
    maximum : the largest physical value, in `unit`; larger ones are fitting failures.
    """

    name: str
    label: str
    unit: str
    scale: float
    maximum: float

    def to_network(self, values: Array) -> Array:
        """Physical values -> network range."""
        return (values / np.float32(self.scale)).astype(np.float32)

    def from_network(self, values: Array) -> Array:
        """Network range -> physical values, not clipped; inverse of `to_network`."""
        return (values * np.float32(self.scale)).astype(np.float32)

    def clip(self, values: Array) -> Array:
        """Into the physically possible range [0, maximum]."""
        return np.clip(values, 0.0, self.maximum).astype(np.float32)


FA = MapSpec(name="fa", label="FA", unit="", scale=1.0, maximum=1.0)
# Free water at 37 C diffuses at 3.0e-3 mm2/s; 3.2e-3 leaves room for the noise of the fit.
MD = MapSpec(name="md", label="MD", unit="mm^2/s", scale=3.2e-3, maximum=3.2e-3)

# AD is at most the sum of the eigenvalues, RD at most their mean.
AD = MapSpec(name="ad", label="AD", unit="mm^2/s", scale=3.2e-3, maximum=9.6e-3)
RD = MapSpec(name="rd", label="RD", unit="mm^2/s", scale=3.2e-3, maximum=3.2e-3)

# What every cohort has, and all that it may have: AD with RD, which follows from MD and AD.
MAPS: tuple[MapSpec, ...] = (FA, MD)
ALL_MAPS: tuple[MapSpec, ...] = (FA, MD, AD, RD)


def checked(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a cohort's maps: fa, md or fa, md, ad, rd.

    Raises
    ------
    ValueError : if they are others. AD and RD say one and the same beside MD.
    """
    sets = [tuple(spec.name for spec in maps) for maps in (MAPS, ALL_MAPS)]
    if names not in sets:
        known = " or ".join(f"[{', '.join(one)}]" for one in sets)
        raise ValueError(f"expected maps {known}, found [{', '.join(names)}]")
    return names


def map_spec(name: str) -> MapSpec:
    """The map called `name`, in upper or lower case.

    Raises
    ------
    UserError : if there is no such map.
    """
    for spec in ALL_MAPS:
        if spec.name == name.lower():
            return spec
    known = ", ".join(spec.name for spec in ALL_MAPS)
    raise UserError(f"unknown map '{name}': expected one of {known}")
