"""Figures of one evaluation."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.maps import MapSpec

if TYPE_CHECKING:
    from evaluation.cohort import Cohort

Array = NDArray[np.float32]

# One window per map in every figure, so that figures can be compared.
WINDOW = {"fa": 0.8, "md": 1.6e-3}
_COLUMNS = 6
_BINS = 100
_WHITE_MATTER_FA = 0.35


def gallery(path: Path, rows: dict[str, Cohort], maps: tuple[MapSpec, ...]) -> None:
    """Axial slices of volumes of rising age, one block of rows per map, one row per set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    count = len(maps) * len(rows)
    figure, axes = plt.subplots(count, _COLUMNS, figsize=(1.5 * _COLUMNS, 1.85 * count))
    line = 0
    for k, spec in enumerate(maps):
        for label, cohort in rows.items():
            ages = np.array([c.age for c in cohort.conditions])
            order = np.argsort(ages, kind="stable")
            chosen = order[np.linspace(0, len(order) - 1, _COLUMNS).round().astype(int)]
            for axis, i in zip(axes[line], chosen, strict=True):
                volume = cohort.volumes[i, k]
                axis.imshow(
                    volume[:, :, volume.shape[2] // 2].T,
                    origin="lower",
                    cmap="gray",
                    vmin=0,
                    vmax=WINDOW[spec.name],
                )
                person = cohort.conditions[i]
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
    sets: dict[str, Cohort],
    train: Cohort,
    maps: tuple[MapSpec, ...],
) -> None:
    """White-matter mean of each map against age, one colour per set.

    White matter is where the training subjects' mean FA is above 0.35.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fa = [m.name for m in maps].index("fa")
    white = train.volumes[:, fa].mean(axis=0) > _WHITE_MATTER_FA
    figure, axes = plt.subplots(1, len(maps), figsize=(4.5 * len(maps), 3.2))
    for k, (axis, spec) in enumerate(zip(axes, maps, strict=True)):
        for label, cohort in sets.items():
            ages = [c.age for c in cohort.conditions]
            means = cohort.volumes[:, k][:, white].mean(axis=1)
            axis.plot(ages, means, "o", markersize=3, alpha=0.7, label=label)
        axis.set_xlabel("age (years)")
        axis.set_ylabel(f"white-matter {spec.label}" + (f" ({spec.unit})" if spec.unit else ""))
    axes[0].legend(fontsize=8)
    _save(figure, path)


def histogram_table(
    path: Path, sets: dict[str, Cohort], maps: tuple[MapSpec, ...], md: int
) -> None:
    """In-brain histograms as CSV for DVC's plots: columns map, set, value, density."""
    from evaluation.profile import BACKGROUND_MD

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["map", "set", "value", "density"])
        for k, spec in enumerate(maps):
            for label, cohort in sets.items():
                values = cohort.volumes[:, k][cohort.volumes[:, md] > BACKGROUND_MD]
                density, edges = np.histogram(values, _BINS, (0, spec.maximum), density=True)
                for value, height in zip((edges[:-1] + edges[1:]) / 2, density, strict=True):
                    table.writerow([spec.name, label, f"{value:.6g}", f"{height:.6g}"])


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
