"""Registration engines: ours, ours with a library's pieces, and dipy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CHANNELS = ("FA", "MD", "boundary distance")
STEPS = 12


@dataclass(frozen=True)
class Task:
    """One subject and the template of their age and sex.

    Parameters
    ----------
    volume : (C, X, Y, Z), encoded.
    template : (C, FX, FY, FZ), encoded, on a grid of half steps.
    precision : (C, X, Y, Z), weights of the channels.
    mask : (X, Y, Z), where any brain may be.
    width : of the smoothing of displacements, in voxels.
    """

    volume: Tensor
    template: Tensor
    precision: Tensor
    mask: NDArray[np.bool_]
    width: float


# A task -> displacement (3, X, Y, Z) in voxels, and its inverse where the engine has one.
Engine = Callable[[Task], "tuple[Tensor, Tensor | None]"]


def ours(channels: Sequence[int], pull: Any = None, smooth: Any = None) -> Engine:
    """Gauss-Newton registration of these channels, perhaps with another `pull` and `smooth`."""

    def run(task: Task) -> tuple[Tensor, None]:
        from unittest.mock import patch

        import torch

        from models import warp

        precision = torch.zeros_like(task.precision)
        precision[list(channels)] = task.precision[list(channels)]
        precision, start = warp.refined(precision, 2), torch.zeros(3, *task.mask.shape)
        with patch.multiple(warp, pull=pull or warp.pull, smooth=smooth or warp.smooth):
            return warp.register(
                task.volume, task.template, precision, start, STEPS, task.width
            ), None

    return run


def dipy(metric: str, contrast: str, iterations: Sequence[int]) -> Engine:
    """SyN with the metric ``CC`` (as `cohort.registration`) or ``SSD`` of one contrast.

    It is ``FA``, ``T1w`` (which `cohort.registration` makes of FA and MD), or ``sum``: that and
    the distance to the boundary, the best of those tried.
    """

    def image(encoded: Tensor) -> NDArray[np.float64]:
        import numpy as np

        from cohort.registration import t1w_like
        from contracts.maps import MAPS
        from models import representation

        if contrast == "FA":
            return encoded[0].numpy().astype(np.float64)
        fa, md = representation.decode(encoded[None].numpy(), MAPS)[0]
        t1w: NDArray[np.float64] = t1w_like(fa, md) * representation.brain(encoded.numpy())
        return t1w + 0.7 * encoded[-1].double().numpy() if contrast == "sum" else t1w

    def run(task: Task) -> tuple[Tensor, Tensor]:
        import numpy as np
        import torch
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration, VerbosityLevels
        from dipy.align.metrics import CCMetric, SSDMetric

        way = (
            CCMetric(3, sigma_diff=task.width, radius=2)
            if metric == "CC"
            else SSDMetric(3, smooth=task.width)
        )
        engine = SymmetricDiffeomorphicRegistration(way, level_iters=list(iterations))
        engine.verbosity = VerbosityLevels.NONE
        template = task.template[:, ::2, ::2, ::2]
        found = engine.optimize(
            image(task.volume), image(template),
            static_grid2world=np.eye(4), moving_grid2world=np.eye(4),
        )  # fmt: skip
        # Not `forward` and `backward`: the map that SyN returns is the inverse of another.
        there, back = (
            torch.from_numpy(np.moveaxis(np.asarray(field), -1, 0).astype(np.float32))
            for field in (found.get_forward_field(), found.get_backward_field())
        )
        return there, back

    return run


def engines() -> dict[str, Engine]:
    """What is compared."""
    from benchmarks.interpolation import filtered, interpolated, sampled

    every = range(len(CHANNELS))
    return {
        "ours": ours(every),
        "ours, FA alone": ours([0]),
        "ours, gaussian_filter": ours(every, smooth=filtered),
        "ours, grid_sample, gaussian_filter": ours(every, sampled, filtered),
        "ours, map_coordinates, gaussian_filter": ours(every, interpolated, filtered),
        **{
            f"dipy {metric}, {contrast}, {steps}": dipy(metric, contrast, steps)
            for metric, contrast, steps in (
                ("CC", "sum", [20, 5]),
                ("SSD", "sum", [20, 5]),
                ("CC", "T1w", [20, 20]),
                ("SSD", "sum", [20, 20]),
                ("CC", "FA", [20, 20]),
            )
        },
    }
