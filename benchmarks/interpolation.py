"""Our interpolation, its adjoint and smoothing beside scipy's and torch's."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

ROUNDS = 5


def sampled(image: Tensor, shift: Tensor) -> Tensor:
    """`pull` of ours by torch's grid_sample."""
    import torch

    shape = shift.shape[1:]
    axes = torch.meshgrid(*(torch.arange(n).float() for n in shape), indexing="ij")
    last = torch.tensor(shape).view(3, 1, 1, 1) - 1
    # From -1 to 1 between the outermost voxels, the last axis first.
    grid = (2 * (torch.stack(axes) + shift) / last - 1).flip(0).permute(1, 2, 3, 0)[None]
    return torch.nn.functional.grid_sample(
        image[None], grid, padding_mode="border", align_corners=True
    )[0]


def interpolated(image: Tensor, shift: Tensor) -> Tensor:
    """`pull` of ours by scipy's map_coordinates."""
    import numpy as np
    import torch
    from scipy.ndimage import map_coordinates

    finer = (image.shape[1] - 1) // (shift.shape[1] - 1)
    at = (np.indices(shift.shape[1:]) + shift.numpy()) * finer
    return torch.from_numpy(
        np.stack([map_coordinates(one, at, order=1, mode="nearest") for one in image.numpy()])
    )


def filtered(image: Tensor, width: float) -> Tensor:
    """`smooth` of ours by scipy's gaussian_filter."""
    import torch
    from scipy.ndimage import gaussian_filter

    widths = (0.0, width, width, width)
    return torch.from_numpy(gaussian_filter(image.numpy(), widths, mode="nearest"))


def pieces(shape: tuple[int, ...], width: float) -> dict[str, Any]:
    """CPU seconds of interpolation, its adjoint and smoothing, ours and the libraries'."""
    import numpy as np
    import torch

    from benchmarks.costs import interleaved, ratio, summary
    from models import warp

    made = torch.Generator().manual_seed(0)
    shift = warp.smooth(torch.randn(3, *shape, generator=made), 2 * width) * 4 * width**1.5
    out: dict[str, Any] = {}

    def compare(what: str, runs: dict[str, Callable[[], Any]], ring: int = 0) -> None:
        def timed(run: Callable[[], Any]) -> Callable[[], float]:
            def once() -> float:
                begun = time.process_time()
                run()
                return time.process_time() - begun

            return once

        cut = (slice(None), *[slice(ring, n - ring) for n in shape])
        values = {name: np.asarray(run()) for name, run in runs.items()}
        found = interleaved({name: timed(run) for name, run in runs.items()}, ROUNDS)
        out[what] = {
            name: {
                "cpu_s": summary(found[name]),
                "over_ours": ratio(found[name], found["ours"]),
                "largest_difference": float(np.abs(values[name] - values["ours"]).max()),
                "largest_difference_inside": float(
                    np.abs(values[name][cut] - values["ours"][cut]).max()
                ),
            }
            for name in runs
        }

    def grid_adjoint(values: Tensor) -> Tensor:
        """The sums and weights of `push` as the gradient of grid_sample."""
        both = torch.cat([values, torch.ones_like(values[:1])])
        image = torch.zeros_like(both, requires_grad=True)
        return torch.autograd.grad(sampled(image, shift), image, both)[0]

    def added(values: Tensor) -> np.ndarray[Any, Any]:
        """The same by np.add.at; corners and weights are found as ours finds them."""
        matrix = warp.Places(shift)._matrix
        both = torch.cat([values, torch.ones_like(values[:1])]).flatten(1).numpy()
        sums = np.zeros((len(both), matrix.shape[1]), dtype=np.float32)
        for total, one in zip(sums, both, strict=True):
            np.add.at(total, matrix.indices, np.repeat(one, 8) * matrix.data)
        return sums.reshape(-1, *shape)

    for count in (3, 9, 40):
        image = torch.randn(count, *shape, generator=made)
        known = warp.Places(shift)
        compare(f"interpolation, {count} channels", {
            "ours": partial(warp.pull, image, shift),
            "ours, displacement seen before": partial(known.pull, image),
            "map_coordinates": partial(interpolated, image, shift),
            "grid_sample": partial(sampled, image, shift),
        })  # fmt: skip
    fine = torch.randn(6, *[2 * n - 1 for n in shape], generator=made)
    compare("interpolation, 6 channels of half steps", {
        "ours": lambda: warp.pull(fine, shift),
        "map_coordinates": lambda: interpolated(fine, shift),
        "grid_sample": lambda: sampled(fine, shift),
    })  # fmt: skip
    few = torch.randn(3, *shape, generator=made)
    compare("adjoint, 3 channels and weights", {
        "ours": lambda: torch.cat(warp.push(few, shift)),
        "gradient of grid_sample": lambda: grid_adjoint(few),
        "np.add.at": lambda: added(few),
    })  # fmt: skip
    for count, wide in ((3, width), (9, 0.7 * width)):
        image = torch.randn(count, *shape, generator=made)
        compare(f"smoothing, {count} channels, {wide:g} voxels", {
            "ours": partial(warp.smooth, image, wide),
            "gaussian_filter": partial(filtered, image, wide),
        }, ring=round(4 * wide) + 1)  # fmt: skip
    return out
