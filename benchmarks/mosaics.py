"""Mosaics of real maps, a cohort of another making than the simulated one:
`python -m benchmarks.mosaics MAPS OUT`.

Each person is put together from real FA and MD maps on one grid: smooth random fields choose which
map is seen where, a smooth warp moves everything, and FA and MD follow age and sex by known
amounts. Texture is thereby real, and several shapes occur at every place, which no deformation of
one template gives. The cohort is for measuring and never for choosing settings by.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from cohort import derivatives
from cohort.derivatives import Derivatives, Participant
from cohort.masking import solid
from cohort.split import SplitSettings, split
from contracts import bids, volume
from contracts.console import command, progress, say
from contracts.errors import UserError
from contracts.space import Space, mni_space
from evaluation.measurement_grid import BACKGROUND_MD
from evaluation.measurements import WHITE_MATTER_FA

Array = NDArray[np.float64]

# Effects of age per decade from 50 years on and of being a man, relative; head size of a man less
# that of a woman, relative.
AGE_EFFECT = {"fa": -0.02, "md": 0.02}
HEAD_SIZE = 0.03
# Widths of the random fields in mm, as standard deviations of a Gaussian, and their sizes.
_REGION_MM, _WARP_MM, _VALUE_MM = 12.0, 12.0, 16.0
_WARP_SIZE_MM, _VALUE_SIZE = 2.0, {"fa": 0.04, "md": 0.03}
_FINE_MM, _COARSE_MM = 2.0, 4.0
_SPLIT = {"val": 0.15, "test": 0.2}


@dataclass(frozen=True, slots=True)
class RealMaps:
    """Real maps on one grid, with equal means over white matter.

    Parameters
    ----------
    maps : (n, 2, X, Y, Z), FA and MD in physical units.
    affine : (4, 4) voxel index to mm.
    """

    maps: NDArray[np.float32]
    affine: Array

    @classmethod
    def read(cls, folder: Path) -> RealMaps:
        """Reads all pairs of FA and MD maps of a folder.

        Raises
        ------
        UserError : if there are fewer than two pairs, or they are not on one grid.
        """
        found: list[NDArray[np.float32]] = []
        affine = first = np.eye(4)
        for path in sorted(folder.glob("*param-fa_dwimap.nii.gz")):
            other = path.with_name(path.name.replace("param-fa", "param-md"))
            fa, affine = volume.read(path)
            first = first if found else affine
            if not other.exists():
                raise UserError(f"{path.name} has no MD map beside it: expected {other.name}")
            md, md_affine = volume.read(other)
            same = fa.shape == md.shape and (not found or fa.shape == found[0][0].shape)
            if not same or not np.allclose(affine, md_affine) or not np.allclose(affine, first):
                raise UserError(f"{path.name}: expected all maps of {folder} on one grid")
            found.append(np.stack([fa, md]))
        if len(found) < 2:
            raise UserError(
                f"{folder}: expected two or more pairs of maps *_param-fa_dwimap.nii.gz and "
                f"*_param-md_dwimap.nii.gz on one grid, found {len(found)}"
            )
        maps = np.nan_to_num(np.stack(found).astype(np.float32))
        white = maps[:, 0] > WHITE_MATTER_FA
        means = np.array(
            [m[:, w].mean(axis=1, dtype=np.float64) for m, w in zip(maps, white, strict=True)]
        )
        gains = (means.mean(axis=0) / means)[:, :, None, None, None]
        return cls((maps * gains).astype(np.float32), affine)


def person(
    real: RealMaps, who: Participant, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """Returns one person's maps (2, X, Y, Z) and mask (X, Y, Z) on the grid of 4 mm."""
    from scipy.ndimage import map_coordinates

    fine = mni_space(_FINE_MM)
    chosen = np.argmax([_field(rng, fine, _REGION_MM) for _ in real.maps], axis=0)
    warp = _WARP_SIZE_MM * np.stack([_field(rng, fine, _WARP_MM) for _ in range(3)], axis=-1)
    male = 1.0 if who.sex == "M" else 0.0
    size = 1 + HEAD_SIZE * (male - 0.5) + 0.02 * rng.standard_normal()
    places = fine.centres() / size + warp
    index = (places - real.affine[:3, 3]) @ np.linalg.inv(real.affine[:3, :3]).T
    maps = np.zeros((2, *fine.shape))
    for k, one in enumerate(real.maps):
        here = chosen == k
        for m in range(2):
            maps[m, here] = map_coordinates(one[m], index[here].T, order=1)
    brain = solid(maps[1] > BACKGROUND_MD)
    decades = (who.age - 50) / 10
    for m, name in enumerate(("fa", "md")):
        own = 1 + _VALUE_SIZE[name] * (_field(rng, fine, _VALUE_MM) + rng.standard_normal() / 2)
        maps[m] *= own * (1 + AGE_EFFECT[name] * decades)
    share = _cells(brain.astype(np.float64)[None])[0]
    coarse = _cells(maps * brain) / np.maximum(share, 1e-6)
    return coarse, solid(share > 0.5)


def _field(rng: np.random.Generator, space: Space, sigma_mm: float) -> Array:
    """Returns a smooth random field of unit variance on a grid."""
    from scipy.ndimage import gaussian_filter, zoom

    # A field this smooth is drawn on a coarser grid and interpolated.
    coarse = [n // 4 + 2 for n in space.shape]
    field = gaussian_filter(rng.standard_normal(coarse), sigma_mm / (4 * _FINE_MM), mode="wrap")
    factors = [n / c for n, c in zip(space.shape, coarse, strict=True)]
    fine = zoom(field / field.std(), factors, order=1)
    return np.asarray(fine, dtype=np.float64)


def _cells(maps: Array) -> Array:
    """Returns the means of cells of 2 x 2 x 2 voxels, which are the voxels of 4 mm."""
    n, x, y, z = maps.shape
    means: Array = maps.reshape(n, x // 2, 2, y // 2, 2, z // 2, 2).mean(axis=(2, 4, 6))
    return means


def build(folder: Path, out: Path, count: int, seed: int) -> Derivatives:
    """Writes a cohort of mosaics: `out/derivatives` and `out/split.json`.

    Parameters
    ----------
    folder : real maps on one grid.

    Raises
    ------
    UserError : as `RealMaps.read`, or if `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: name another folder, or remove it first")
    real, root = RealMaps.read(folder), out / "derivatives"
    rng = np.random.default_rng(seed)
    people = [
        Participant(f"sub-mosaic{i:04d}", round(float(age), 1), "FM"[i % 2], "base", "A")
        for i, age in enumerate(rng.uniform(18, 88, count))
    ]
    space = mni_space(_COARSE_MM)
    derivatives.write_description(root, "Mosaics of real maps", True, "benchmarks.mosaics")
    derivatives.write_participants(root, people)
    derivatives.write_space(root, space)
    for i, who in enumerate(progress(people, count, "mosaics")):
        maps, mask = person(real, who, np.random.default_rng((seed, i)))
        named = {"fa": maps[0].astype(np.float32), "md": maps[1].astype(np.float32)}
        derivatives.write_subject(root, who.id, space, named, mask, {})
    manifest = split(people, SplitSettings(seed, **_SPLIT))
    (out / "split.json").write_text(json.dumps(manifest.to_json(), indent=1))
    return Derivatives.open(root)


@command()
@click.argument("maps", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--count", default=320, show_default=True, help="Number of people.")
@click.option("--seed", default=1, show_default=True)
def main(maps: Path, out: Path, count: int, seed: int) -> None:
    """Build a cohort of mosaics from the real maps in the folder MAPS, and write it to OUT.

    Contests run on it with `--derivatives OUT/derivatives --split OUT/split.json`.
    """
    build(maps, out, count, seed)
    say(f"{count} people in {out / 'derivatives'}, {bids.PARTICIPANTS}; split in {out}")


if __name__ == "__main__":
    main()
