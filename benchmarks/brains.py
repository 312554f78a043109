"""Smooth random brains on a grid of any size, encoded for generators: data for speed tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cohort import channels, row_cache
from cohort.group_template import GroupTemplate, smoothing_sigma
from cohort.template_estimator import Volumes
from contracts.condition import Condition
from contracts.maps import MAPS
from contracts.space import Space
from models.config import DiffusionConfig, NetworkConfig
from models.coverage import Coverage
from models.generator import Generator
from models.generator_config import GeneratorConfig
from models.prior.prior import Prior
from training.dataset import TrainingImages

Array = NDArray[np.float32]
Shape = tuple[int, int, int]
# The edge of every grid in millimetres: with more voxels, voxels are smaller.
_HEAD_MM = 160.0


def people(n: int) -> list[Condition]:
    """Ages and sexes of n people."""
    return [Condition(18 + 70 * i / n, "F" if i % 2 else "M") for i in range(n)]


def brain(i: int, shape: Shape) -> Array:
    """The i-th encoded volume (3, X, Y, Z)."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(i)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.2, 1.2, s) for s in shape], indexing="ij"))
    radius = (grid**2).sum(axis=0)
    mask = radius < 1 + 0.05 * rng.standard_normal()
    own = gaussian_filter(rng.standard_normal((2, *shape), dtype=np.float32), (0, 2, 2, 2))
    maps = np.array([0.35, 0.9e-3])[:, None, None, None] + own * np.array([1, 1e-3]).reshape(
        2, 1, 1, 1
    )
    maps = np.clip(maps, 1e-4, [[[[1.0]]], [[[3.0e-3]]]]).astype(np.float32) * mask
    encoded: Array = channels.encode(maps[None], mask[None], MAPS)[0]
    return encoded


@dataclass(frozen=True, slots=True)
class RegisteredSubjects:
    """Subjects, and the template that was made from them.

    Parameters
    ----------
    encoded : (n, C, X, Y, Z), in the channels of `cohort.channels`.
    displacements : (n, 3, X, Y, Z), to the template, in voxels.
    """

    template: GroupTemplate
    encoded: Volumes
    displacements: Volumes
    conditions: Sequence[Condition]

    @classmethod
    def of(
        cls, encoded: Array, conditions: Sequence[Condition], space: Space, work: Path
    ) -> RegisteredSubjects:
        """Makes the template of encoded volumes (n, C, X, Y, Z) in the folder `work`."""
        reach = channels.possible_brain(channels.brain(volume) for volume in encoded)
        template, found = GroupTemplate.fit(
            encoded, reach, conditions, smoothing_sigma(space), work / "template"
        )
        return cls(template, encoded, found, conditions)

    def prior(self, sites: tuple[str, ...] = ()) -> Prior:
        """Returns a prior that is fitted to them."""
        return Prior.fit(self.template, self.encoded, self.displacements, self.conditions, sites)

    def images(self, prior: Prior, work: Path) -> TrainingImages:
        """Writes what a denoiser of this prior is trained on to the folder `work`."""
        return TrainingImages.of(prior, self.encoded, self.displacements, self.conditions, work)


def prepare(
    n: int, shape: Shape, network: NetworkConfig, work: Path
) -> tuple[Generator, TrainingImages]:
    """An untrained 3D generator of n brains and what it is trained on, made as by `train`."""
    encoded = row_cache.rows(
        work / "encoded.npy", (n, 3, *shape), lambda i: brain(i, shape), "brains"
    )
    zooms = [_HEAD_MM / s for s in shape]
    space = Space.from_affine("bench", shape, np.diag([*zooms, 1.0]))
    seen = RegisteredSubjects.of(encoded, people(n), space, work)
    names = tuple(m.name for m in MAPS)
    config = GeneratorConfig("3d", space, names, network, DiffusionConfig(), Coverage.of(people(n)))
    generator = Generator(config, seen.prior())
    return generator, seen.images(generator.prior, work)
