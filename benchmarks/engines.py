"""Registration engines: ours, ours with scipy's interpolation, and dipy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CHANNELS = ("fa", "md", "distance")
STEPS = 12


@dataclass(frozen=True)
class Task:
    """One subject and the template of their age and sex.

    Parameters
    ----------
    volume : (C, X, Y, Z), encoded.
    template : (C, FX, FY, FZ), encoded, on a grid of half steps.
    inverse_sd : (C, X, Y, Z), weights of the channels.
    mask : (X, Y, Z), where any brain may be.
    sigma : standard deviation of the smoothing of displacements, in voxels.
    """

    volume: Tensor
    template: Tensor
    inverse_sd: Tensor
    mask: NDArray[np.bool_]
    sigma: float


# A task -> displacement (3, X, Y, Z) in voxels, and its inverse where the engine has one.
Engine = Callable[[Task], "tuple[Tensor, Tensor | None]"]


def ours(channels: Sequence[int], displaced: Any = None) -> Engine:
    """Our registration of these channels, perhaps with another function for `displaced`."""

    def run(task: Task) -> tuple[Tensor, None]:
        from unittest.mock import patch

        import torch

        from cohort import elastic_registration as engine
        from cohort import interpolation

        chosen = torch.zeros_like(task.inverse_sd)
        chosen[list(channels)] = task.inverse_sd[list(channels)]
        fine, start = interpolation.upsampled(chosen, 2), torch.zeros(3, *task.mask.shape)
        with patch.object(engine, "displaced", displaced or interpolation.displaced):
            return engine.register(task.volume, task.template, fine, start, STEPS, task.sigma), None

    return run


def dipy(metric: str, contrast: str, iterations: Sequence[int]) -> Engine:
    """SyN with the metric ``CC`` (as `cohort.registration`) or ``SSD`` of one contrast.

    It is ``FA``, ``T1w`` (which `cohort.registration` makes of FA and MD), or ``sum``: that and
    the distance to the boundary, the best of those tried.
    """

    def image(encoded: Tensor) -> NDArray[np.float64]:
        import numpy as np

        from cohort import channels
        from cohort.registration import t1w_like
        from contracts.maps import MAPS

        if contrast == "FA":
            return encoded[0].numpy().astype(np.float64)
        fa, md = channels.decode(encoded[None].numpy(), MAPS)[0]
        t1w: NDArray[np.float64] = t1w_like(fa, md) * channels.brain(encoded.numpy())
        return t1w + 0.7 * encoded[-1].double().numpy() if contrast == "sum" else t1w

    def run(task: Task) -> tuple[Tensor, Tensor]:
        import numpy as np
        import torch
        from dipy.align.imwarp import SymmetricDiffeomorphicRegistration, VerbosityLevels
        from dipy.align.metrics import CCMetric, SSDMetric

        way = (
            CCMetric(3, sigma_diff=task.sigma, radius=2)
            if metric == "CC"
            else SSDMetric(3, smooth=task.sigma)
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


def interpolated(image: Tensor, shift: Tensor) -> Tensor:
    """`displaced` of ours by scipy's map_coordinates."""
    import numpy as np
    import torch
    from scipy.ndimage import map_coordinates

    finer = (image.shape[1] - 1) // (shift.shape[1] - 1)
    at = (np.indices(shift.shape[1:]) + shift.numpy()) * finer
    return torch.from_numpy(
        np.stack([map_coordinates(one, at, order=1, mode="nearest") for one in image.numpy()])
    )


def engines() -> dict[str, Engine]:
    """What is compared."""
    every = range(len(CHANNELS))
    return {
        "ours": ours(every),
        "ours, FA alone": ours([0]),
        "ours, map_coordinates": ours(every, interpolated),
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
