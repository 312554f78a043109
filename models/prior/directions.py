"""Ways in which whole brains differ from the mean one."""

from __future__ import annotations

import numpy as np
import torch

from cohort.group_template import AXES
from cohort.interpolation import smooth
from cohort.regression import Array
from models.prior.template_transform import TemplateTransform


def directions(transform: TemplateTransform) -> Array:
    """Returns such ways, (D, C + 3, X, Y, Z), in units of a relative volume.

    They are maps that are a little higher in all tissue, in one kind of it, or towards one end of
    the head; heads that are shifted, turned or longer; fluid spaces and tracts that are wider. No
    stationary field varies so much over so long a way.
    """
    template = transform.template
    mean, mask = template.on_grid(), template.mask
    one = np.ones(mask.shape, dtype=np.float32)
    along = [_cosine(mask.shape, axis) for axis in range(AXES)]
    slope = transform.sensitivity()[: len(mean)]
    out = []

    def add(which: int | slice, values: Array) -> None:
        field = np.zeros((transform.channels, *mask.shape), dtype=np.float32)
        field[which] = values
        out.append(field * mask)

    for k in range(len(mean) - 1):
        for base in (one, *mean[:2], *along):
            add(k, base / slope[k])
    for base in (one, *along):
        add(len(mean) - 1, base / slope[-1])
        for axis in range(AXES):
            add(len(mean) + axis, base)
    wide = smooth(torch.from_numpy(mean), 1.5 * template.sigma).numpy()
    for image in wide[:2]:
        add(slice(len(mean), None), np.stack(np.gradient(image)))
    return np.stack(out)


def _cosine(shape: tuple[int, ...], axis: int) -> Array:
    wave = np.cos(np.pi * (np.arange(shape[axis]) + 0.5) / shape[axis])
    tall = wave.reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return np.broadcast_to(tall, shape).astype(np.float32)
