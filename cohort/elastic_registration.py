"""Registration of the group template to a volume by a small displacement (Gauss-Newton demons)."""

from __future__ import annotations

import torch
from torch import Tensor

from cohort.interpolation import displaced, smooth

# Damping of the locally averaged equations, in squared standard deviations per squared voxel. It
# regularises flat regions, which do not show where they have moved.
_DAMPING = 0.5
# Least damping relative to the equations' size: below it, single precision loses what one
# direction says beside the others.
_LEAST_DAMPING = 1e-6
# Voxels that a place moves in one step at most.
_LONGEST_STEP = 1.0
# The equations are averaged with a Gaussian of this share of the displacements' sigma.
_POOLING = 0.7
# The six entries of a symmetric 3 x 3 matrix.
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def register(
    volume: Tensor,
    template: Tensor,
    inverse_sd: Tensor,
    displacement: Tensor,
    steps: int,
    sigma: float,
) -> Tensor:
    """Finds the displacement u for which template(x + u(x)) is like volume(x) in all channels.

    Takes Gauss-Newton steps for the squared difference. Their equations are pooled over a
    neighbourhood (Lucas & Kanade 1981), and the displacement is smoothed after each (the elastic
    kind of Thirion's demons, 1998).

    Parameters
    ----------
    volume : (C, X, Y, Z).
    template : (C, ...), on the volume's grid or a finer one.
    inverse_sd : as the template: one over the standard deviation that differences have, 0 where
        they do not count.
    displacement : (3, X, Y, Z) in voxels, to begin with.
    sigma : standard deviation of the Gaussian that smooths displacements, in voxels.

    Returns
    -------
    (3, X, Y, Z), in voxels.
    """
    both, count = torch.cat([template, inverse_sd]), len(volume)
    for _ in range(steps):
        found = displaced(both, displacement)
        seen, weight = found[:count], found[count:]
        slope = torch.stack(torch.gradient(seen, dim=(1, 2, 3))) * weight
        error = (volume - seen) * weight
        pooled = smooth(
            torch.stack(
                [(slope[i] * slope[j]).sum(dim=0) for i, j in _PAIRS]
                + [(part * error).sum(dim=0) for part in slope]
            ),
            _POOLING * sigma,
        )
        step = _solved(pooled[:6], pooled[6:])
        # torch's `norm` is slow along the first axis.
        length = step.square().sum(dim=0).sqrt().clamp(min=_LONGEST_STEP)
        displacement = smooth(displacement + step * (_LONGEST_STEP / length), sigma)
    return displacement


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Solves damped symmetric 3 x 3 equations in each voxel, by their adjugate.

    Parameters
    ----------
    matrix : (6, ...), entries in the order of `_PAIRS`.
    right : (3, ...).
    """
    size = matrix[0] + matrix[3] + matrix[5] + _DAMPING
    # The equations are scaled to size 1: products of larger entries would leave the range of fp32.
    a, b, c, d, e, f = matrix / size
    damping = _DAMPING / size + _LEAST_DAMPING
    a, d, f = a + damping, d + damping, f + damping
    xx, xy, xz = d * f - e * e, c * e - b * f, b * e - c * d
    yy, yz, zz = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * xx + b * xy + c * xz
    x, y, z = right / size
    rows = (xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z)
    found: Tensor = torch.stack(rows) / determinant
    return found
