"""Figures of an evaluation: slices, white matter against age, histograms."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec

if TYPE_CHECKING:
    from evaluation.volume_set import VolumeSet

Float32Array = NDArray[np.float32]

# The window of a map is the same in every figure, so that figures can be compared.
WINDOW = {"fa": 0.8, "md": 1.6e-3}
_COLUMNS = 6
_BINS = 100
_WHITE_MATTER_FA = 0.35


def gallery(path: Path, rows: dict[str, VolumeSet], maps: tuple[MapSpec, ...]) -> None:
    """Draws axial slices of six volumes of rising age per set, all sets of a map below each other.

    Parameters
    ----------
    path : PNG file to write.
    rows : label -> volumes, one row of slices each.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(maps) * len(rows)
    figure, axes = plt.subplots(count, _COLUMNS, figsize=(1.5 * _COLUMNS, 1.85 * count))
    line = 0
    for k, spec in enumerate(maps):
        for label, volume_set in rows.items():
            ages = np.array([c.age for c in volume_set.conditions])
            order = np.argsort(ages, kind="stable")
            chosen = order[np.linspace(0, len(order) - 1, _COLUMNS).round().astype(int)]
            for axis, i in zip(axes[line], chosen, strict=True):
                volume = volume_set.volumes[i, k]
                axis.imshow(
                    volume[:, :, volume.shape[2] // 2].T,
                    origin="lower",
                    cmap="gray",
                    vmin=0,
                    vmax=WINDOW[spec.name],
                )
                person = volume_set.conditions[i]
                axis.set_title(f"{person.age:.0f} {person.sex}", fontsize=7)
                axis.set_axis_off()
            axes[line, 0].text(
                -0.08,
                0.5,
                f"{spec.label}\n{label}",
                transform=axes[line, 0].transAxes,
                ha="right",
                va="center",
                fontsize=8,
            )
            line += 1
    _save(figure, path)


def ageing(
    path: Path,
    sets: dict[str, VolumeSet],
    train: VolumeSet,
    maps: tuple[MapSpec, ...],
) -> None:
    """Draws the white-matter mean of each map against age, one colour per set.

    White matter is where the training subjects' mean FA is above 0.35.

    Parameters
    ----------
    path : PNG file to write.
    sets : label -> volumes.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fa = [m.name for m in maps].index("fa")
    white = train.volumes[:, fa].mean(axis=0) > _WHITE_MATTER_FA
    figure, axes = plt.subplots(1, len(maps), figsize=(4.5 * len(maps), 3.2))
    for k, (axis, spec) in enumerate(zip(axes, maps, strict=True)):
        for label, volume_set in sets.items():
            ages = [c.age for c in volume_set.conditions]
            means = volume_set.volumes[:, k][:, white].mean(axis=1)
            axis.plot(ages, means, "o", markersize=3, alpha=0.7, label=label)
        axis.set_xlabel("age (years)")
        axis.set_ylabel(f"white-matter {spec.label}" + (f" ({spec.unit})" if spec.unit else ""))
    axes[0].legend(fontsize=8)
    _save(figure, path)


def histogram_table(
    path: Path, sets: dict[str, VolumeSet], maps: tuple[MapSpec, ...], md: int
) -> None:
    """Writes the histograms of brain voxels as CSV for DVC's plots.

    The columns are map, set, value and density.

    Parameters
    ----------
    md : the position of MD among the maps.
    """
    from evaluation.measurement_grid import BACKGROUND_MD

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["map", "set", "value", "density"])
        for k, spec in enumerate(maps):
            for label, volume_set in sets.items():
                values = volume_set.volumes[:, k][volume_set.volumes[:, md] > BACKGROUND_MD]
                density, edges = np.histogram(values, _BINS, (0, spec.maximum), density=True)
                for value, height in zip((edges[:-1] + edges[1:]) / 2, density, strict=True):
                    table.writerow([spec.name, label, f"{value:.6g}", f"{height:.6g}"])


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
