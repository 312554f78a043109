"""Samples beside held-out subjects, three planes at four ages: `python -m benchmarks.pictures`.

Writes `docs/images/planes-<dim>.png` from the base generators of `make demo`. For each age the
test subject nearest to it, whoever that is, and a sample of that subject's age and sex.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.console import command, say
from contracts.paths import DERIVATIVES, MODELS, SPLIT

if TYPE_CHECKING:
    from cohort.row_cache import Array
    from contracts.condition import Condition

AGES = (25.0, 45.0, 65.0, 85.0)
_SEED = 700_000
_INCHES = 2.4


def nearest(conditions: list[Condition], ages: tuple[float, ...] = AGES) -> list[int]:
    """Index of the person nearest to each age; nobody is taken twice."""
    left = list(range(len(conditions)))
    out = []
    for age in ages:
        found = min(left, key=lambda i: abs(conditions[i].age - age))
        left.remove(found)
        out.append(found)
    return out


def draw(path: Path, real: Array, made: Array, conditions: list[Condition]) -> None:
    """FA real, FA generated, MD real, MD generated, one under the other; a column per person.

    Parameters
    ----------
    real, made : (n, 2, X, Y, Z), physical units.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from contracts.maps import MAPS
    from training.gallery import planes

    lines = [(spec, k, label, volumes) for k, spec in enumerate(MAPS)
             for label, volumes in (("held out", real), ("generated", made))]  # fmt: skip
    size = (_INCHES * len(conditions), 0.42 * _INCHES * len(lines))
    figure, axes = plt.subplots(len(lines), len(conditions), figsize=size)
    for axis, person in zip(axes[0], conditions, strict=True):
        axis.set_title(f"{person.age:.0f} years, {person.sex}", fontsize=8)
    for row, (spec, k, label, volumes) in zip(axes, lines, strict=True):
        for axis, volume in zip(row, volumes, strict=True):
            axis.imshow(planes(volume[k], spec), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
        row[0].set_ylabel(f"{spec.label}\n{label}", fontsize=8)
    figure.tight_layout(pad=0.4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


@command()
@click.option("--models", type=click.Path(path_type=Path), default=MODELS)
@click.option("--derivatives", type=click.Path(path_type=Path), default=DERIVATIVES)
@click.option("--split", type=click.Path(path_type=Path), default=SPLIT)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/images"))
@click.option("--steps", default=16, show_default=True, help="Network evaluations per volume.")
def main(models: Path, derivatives: Path, split: Path, out: Path, steps: int) -> None:
    """Pictures of both base generators beside held-out subjects."""
    from cohort import subjects
    from models.generator import Generator

    test = subjects.load(derivatives, split, "base", "test")
    chosen = nearest(list(test.conditions))
    people = [test.conditions[i] for i in chosen]
    for dim in ("2d", "3d"):
        generator = Generator.load(models / dim / "base")
        seeds = [_SEED + i for i in range(len(people))]
        made = generator.sample(people, seeds, steps)
        path = out / f"planes-{dim}.png"
        draw(path, test.volumes[chosen], made, people)
        say(f"written: {path}")


if __name__ == "__main__":
    main()
