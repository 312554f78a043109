"""Pictures of volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec

# One grey window per map, the same everywhere, so that pictures can be compared. Free water
# would leave tissue dark: MD is shown up to half of its network range.
_WINDOW_SHARE = {"fa": 0.8, "md": 0.5, "ad": 0.6, "rd": 0.5}


def planes(volume: NDArray[np.float32], spec: MapSpec) -> NDArray[np.float32]:
    """Middle axial, coronal and sagittal slice side by side, as grey values in [0, 1].

    Parameters
    ----------
    volume : (X, Y, Z) in physical units, RAS+.

    Returns
    -------
    (height, width), front of the head up or to the left, feet down.
    """
    x, y, z = (n // 2 for n in volume.shape)
    views = [volume[:, :, z].T[::-1], volume[:, y, :].T[::-1], volume[x, ::-1, :].T[::-1]]
    height = max(view.shape[0] for view in views)
    padded = [np.pad(v, ((0, height - v.shape[0]), (0, 0))) for v in views]
    window = _WINDOW_SHARE[spec.name] * spec.scale
    grey: NDArray[np.float32] = np.clip(np.concatenate(padded, axis=1) / window, 0, 1)
    return grey


def sheet(volumes: NDArray[np.float32], maps: tuple[MapSpec, ...]) -> NDArray[np.float32]:
    """One row per volume, one block of three planes per map; (height, width) in [0, 1].

    Parameters
    ----------
    volumes : (n, maps, X, Y, Z), physical units.
    """
    rows = [
        np.concatenate([planes(volume[i], spec) for i, spec in enumerate(maps)], axis=1)
        for volume in volumes
    ]
    return np.concatenate(rows, axis=0)
