"""Brains as a template sees them: how each is shaped, and what is left once that is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.condition import Condition
from models import representation
from models.curves import from_normal, local_spread, rising, to_normal
from models.gaussian import Array, design, regress
from models.rim import Rim
from models.template import FINER, Sight
from models.threads import each
from models.warp import Places, nearest, pull, refined, smooth

# What `contracts.console.progress` is.
Watch = Callable[[Iterable[Array], int, str], Iterable[Array]]
AXES = 3
# Rounds of registration to the template and of making it anew, steps in each, and steps for a
# subject that comes new.
_ROUNDS, _STEPS, _NEW_STEPS = 4, 5, 12
_PASSES = 2
# Of channels in a voxel: nothing is said by another channel alone.
_MOST_CORRELATED = 0.97
_SMOOTH_VOXELS = 1.0


@dataclass(frozen=True, slots=True)
class Frame:
    """The template of a cohort, and what its subjects' voxels are like there.

    Registered brains still differ in shape by parts of a voxel, so that a voxel of the grid is
    fluid in some and tissue in others, and what is modelled there is neither. In the frame of a
    template that is moved to each subject by a smooth displacement u it is one of them: tracts
    stay whole, and FA and MD stay those of one tissue (deformable templates: Joshi et al. 2004;
    Allassonniere et al. 2007).

    An encoded volume v is written, at x, with y = x + u(x),

        v(x) = image(y) + g_y(L(y) z(x)) + what follows the outline (`models.rim`),

    g the voxel's curve of normal values, L lower triangular: how channels go together there. The
    standard volume, z of every channel and then u, is what `models.prior` knows more about. It
    takes no interpolation of v, and v comes back from it exactly (up to 3 standard deviations).

    Parameters
    ----------
    image : (C, FX, FY, FZ), the mean subject on a grid of half steps.
    effects : (4 + S, C, X, Y, Z), what `models.gaussian.design` adds to it, less `centre`; used to
        register.
    centre : (4 + S,), mean regressors of the training subjects.
    precision : (C, X, Y, Z), one over the standard deviation of what registration leaves; 0
        outside the mask.
    rim : how maps follow the outline.
    knots : (9, C, X, Y, Z), curves as in `models.curves`.
    mixing : (C, C, X, Y, Z), L; channels count from the last one, the level set.
    mask : (X, Y, Z), where a brain may be.
    width : of displacements' smoothing, in voxels.
    sites : that the effects tell apart.
    """

    image: Array
    effects: Array
    centre: Array
    precision: Array
    rim: Rim
    knots: Array
    mixing: Array
    mask: NDArray[np.bool_]
    width: float
    sites: tuple[str, ...] = field(default=())

    @classmethod
    def fit(
        cls,
        volumes: Sequence[Array] | Array,
        mask: NDArray[np.bool_],
        conditions: Sequence[Condition],
        sites: tuple[str, ...] = (),
        width: float = 1.0,
        scratch: Path | None = None,
        watch: Watch = lambda items, total, what: items,
    ) -> tuple[Frame, Array]:
        """Template, displacements and curves of encoded (n, C, X, Y, Z) volumes in turn.

        Volumes are read several times, one at a time.

        Parameters
        ----------
        width : in voxels; 4 mm are right for maps of 2 to 4 mm.
        scratch : folder for arrays of all subjects; None: in memory.
        watch : (items, how many, what they are) -> the items; shows progress.

        Returns
        -------
        The frame, and the displacements (n, 3, X, Y, Z) of the volumes, as `shift` finds them.
        """
        n, shape = len(volumes), mask.shape
        rows = design(conditions, sites).astype(np.float32)
        centre = rows.mean(axis=0)
        effects = torch.from_numpy(regress(volumes, conditions, sites) * mask)
        image = refined(torch.tensordot(torch.from_numpy(centre), effects, dims=1), FINER)
        shifts = _kept(scratch, "shift", (n, AXES, *shape))
        sight = Sight(image, effects, torch.from_numpy(rows - centre), mask)

        def register(start: Array, steps: int, what: str) -> None:
            sight.weigh(volumes, shifts)

            def one(i: int) -> Array:
                return sight.registered(i, volumes[i], start[i], steps, width)

            for i, found in enumerate(watch(each(one, n), n, what)):
                shifts[i] = found

        for k in range(_ROUNDS):
            register(shifts, _STEPS, f"template, round {k + 1} of {_ROUNDS}")
            # The template stays in the middle of its subjects.
            shifts -= shifts.mean(axis=0, keepdims=True)
            for _ in range(_PASSES):
                sight.improve(volumes, shifts)
        register(np.broadcast_to(np.float32(0), shifts.shape), _NEW_STEPS, "displacements")
        seen = _kept(scratch, "seen", (n, *volumes[0].shape))

        def inner(i: int) -> Array:
            shift = torch.from_numpy(np.array(shifts[i]))
            left = np.array(volumes[i])
            left[:-1] -= pull(sight.image[:-1], shift).numpy()
            return nearest(torch.from_numpy(left), shift).numpy()

        for i, one in enumerate(each(inner, n)):
            seen[i] = one
        rim = Rim.fit(seen, mask, conditions, sites)
        frame = cls(
            image=sight.image.numpy(),
            effects=sight.effects.numpy(),
            centre=centre,
            precision=sight.precision.numpy(),
            rim=rim,
            knots=np.zeros((0, *volumes[0].shape), dtype=np.float32),
            mixing=np.zeros((0, 0, *shape), dtype=np.float32),
            mask=mask,
            width=width,
            sites=sites,
        )

        def outer(i: int) -> Array:
            shift = torch.from_numpy(np.array(shifts[i]))
            left = frame._left(volumes[i], shift, Places(shift))
            return nearest(torch.from_numpy(left), shift).numpy()

        for i, one in enumerate(each(outer, n)):
            seen[i] = one
        knots = _curves(seen, mask)
        return frame._with(volumes, shifts, rows, knots), shifts

    def _with(
        self, volumes: Sequence[Array] | Array, shifts: Array, rows: Array, knots: Array
    ) -> Frame:
        """The frame with these curves, and how channels go together beyond what the regressors
        explain."""
        frame = replace(self, knots=knots)
        channels = knots.shape[1]
        inverse = np.linalg.pinv(rows)
        mean = np.zeros((rows.shape[1], channels, *self.mask.shape), dtype=np.float32)

        def normal(i: int) -> Array:
            shift = torch.from_numpy(np.array(shifts[i]))
            own = frame._normal(volumes[i], shift, Places(shift))
            return nearest(torch.from_numpy(own), shift).numpy()

        def pairs(i: int) -> Tensor:
            shift = torch.from_numpy(np.array(shifts[i]))
            at = Places(shift)
            expected = torch.from_numpy(np.tensordot(rows[i], mean, axes=1).astype(np.float32))
            left = torch.from_numpy(frame._normal(volumes[i], shift, at)) - at.pull(expected)
            return at.push((left[:, None] * left).flatten(0, 1))[0]

        for weights, one in zip(inverse.T, each(normal, len(rows)), strict=True):
            mean += weights[:, None, None, None, None].astype(np.float32) * one
        total = torch.zeros(channels, channels, *self.mask.shape)
        for sums in each(pairs, len(rows)):
            total += sums.view_as(total)
        mixing = _mixing(total.numpy(), self.mask)
        return replace(frame, mixing=mixing)

    @property
    def channels(self) -> int:
        """Of a standard volume: those of an encoded one, and the displacement's."""
        return len(self.precision) + AXES

    def standard(self, volumes: Array, conditions: Sequence[Condition]) -> Array:
        """Standard volumes (n, C + 3, X, Y, Z) of encoded ones: z, and u in voxels."""

        def one(i: int) -> Array:
            return self.displaced(volumes[i], self.shift(volumes[i], conditions[i]))

        return np.stack(list(each(one, len(volumes))))

    def shift(self, volume: Array, condition: Condition, outline: bool = False) -> Array:
        """The displacement (3, X, Y, Z) of one encoded volume.

        Parameters
        ----------
        outline : whether only the level set is to be looked at.
        """
        row = design([condition], self.sites)[0].astype(np.float32) - self.centre
        precision = torch.from_numpy(self.precision)
        if outline:
            precision = precision.clone()
            precision[:-1] = 0
        sight = Sight(
            torch.from_numpy(self.image), torch.from_numpy(self.effects),
            torch.from_numpy(row[None]), self.mask, precision,
        )  # fmt: skip
        nothing = np.zeros((AXES, *self.mask.shape), dtype=np.float32)
        return sight.registered(0, volume, nothing, _NEW_STEPS, self.width)

    def outlined(self, levels: Array, conditions: Sequence[Condition]) -> Array:
        """Standard volumes of which only the outline is known: z of the level set, and u as far as
        the outline tells it; other channels are 0.

        Parameters
        ----------
        levels : (n, X, Y, Z), level sets.
        """
        volumes = np.zeros((len(levels), len(self.precision), *self.mask.shape), dtype=np.float32)
        volumes[:, -1] = levels
        out = np.zeros((len(levels), self.channels, *self.mask.shape), dtype=np.float32)
        for one, volume, condition in zip(out, volumes, conditions, strict=True):
            found = self.displaced(volume, self.shift(volume, condition, outline=True))
            one[-1 - AXES :] = found[-1 - AXES :]
        return out

    def volumes(self, standard: Array, levels: Array | None = None) -> Array:
        """Encoded volumes of standard ones; inverse of `standard` inside the mask.

        Maps follow the outline, so that the level set of the result is that of its brain: what z
        holds is one only nearly, unless it is that of a volume.

        Parameters
        ----------
        levels : (n, X, Y, Z), level sets to be had instead.
        """
        out = np.empty((len(standard), len(self.precision), *self.mask.shape), dtype=np.float32)
        for i, one in enumerate(standard):
            shift = torch.from_numpy(np.ascontiguousarray(one[-AXES:]) * self.mask)
            at = Places(shift)
            z, mixing = one[:-AXES][::-1], _seen(self.mixing, at)
            normal = np.einsum("kj...,j...->k...", mixing, z)[::-1]
            volume = from_normal(normal[None], _seen(self.knots, at))[0] * self.mask
            volume += pull(torch.from_numpy(self.image), shift).numpy()
            inside = representation.brain(volume)
            if levels is not None:
                volume[-1] = levels[i]
            elif inside.any():
                volume[-1] = representation.level_set(inside)
            out[i] = self._rim(at).followed(volume)
        return out

    def effect(self) -> Array:
        """What a unit of each standard channel changes in an encoded volume, (C + 3, X, Y, Z)."""
        middle = len(self.knots) // 2
        slope = self.knots[middle + 1] - self.knots[middle - 1]
        moved = np.sqrt(sum(np.stack(np.gradient(one)) ** 2 for one in self.coarse()[:-1]))
        return np.concatenate([slope, moved]).astype(np.float32)

    def _left(self, volume: Array, shift: Tensor, at: Places) -> Array:
        """What image and outline leave of an encoded volume."""
        left = self._rim(at).freed(volume)
        left -= pull(torch.from_numpy(self.image), shift).numpy()
        return left * self.mask

    def _normal(self, volume: Array, shift: Tensor, at: Places) -> Array:
        left = self._left(volume, shift, at)
        normal: Array = to_normal(left[None], _seen(self.knots, at))[0] * self.mask
        return normal

    def displaced(self, volume: Array, shift: Array) -> Array:
        """The standard volume of an encoded one (C, X, Y, Z) whose displacement is known."""
        moved = torch.from_numpy(shift)
        at = Places(moved)
        normal, mixing = self._normal(volume, moved, at)[::-1], _seen(self.mixing, at)
        z = np.empty_like(normal)
        for k, row in enumerate(mixing):
            z[k] = (normal[k] - (row[:k] * z[:k]).sum(axis=0)) / row[k]
        return np.concatenate([z[::-1] * self.mask, shift * self.mask])

    def _rim(self, at: Places) -> Rim:
        return Rim(_seen(self.rim.slopes, at), _seen(self.rim.centre, at))

    def coarse(self) -> Array:
        """The mean subject on the grid of volumes, (C, X, Y, Z)."""
        return self.image[:, ::FINER, ::FINER, ::FINER]


def _kept(folder: Path | None, name: str, shape: tuple[int, ...]) -> Array:
    """An array of all subjects, on disk where there is a folder."""
    if folder is None:
        return np.zeros(shape, dtype=np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    mapped: Array = np.lib.format.open_memmap(
        folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=shape
    )
    return mapped


def _seen(values: Array, at: Places) -> Array:
    """Values (..., X, Y, Z) of the template as a displacement shows them."""
    seen: Array = at.pull(torch.from_numpy(values).flatten(0, -4)).view(values.shape).numpy()
    return seen


def _curves(seen: Array, mask: NDArray[np.bool_]) -> Array:
    """Curves (9, C, X, Y, Z) of (n, C, X, Y, Z) values, of the size that these have."""
    variance = np.zeros(seen.shape[1:])
    for one in seen:
        variance += one.astype(np.float64) ** 2 / len(seen)
    spread = local_spread(variance, mask)
    return rising(seen, spread) * spread


def _mixing(total: Array, mask: NDArray[np.bool_]) -> Array:
    """L (C, C, X, Y, Z) of sums of products (C, C, X, Y, Z): the Cholesky factor of correlations
    over a neighbourhood, channels taken from the last one."""
    pooled = smooth(torch.from_numpy(total * mask).flatten(0, 1), _SMOOTH_VOXELS)
    matrix = pooled.view(total.shape).flip(0, 1).permute(2, 3, 4, 0, 1).double()
    own = torch.diagonal(matrix, dim1=-2, dim2=-1).clamp(min=1e-6).sqrt()
    matrix = _MOST_CORRELATED * matrix / (own[..., :, None] * own[..., None, :])
    alone = torch.eye(len(total), dtype=torch.float64)
    matrix = torch.where(alone.bool(), alone, matrix)
    matrix = torch.where(torch.from_numpy(mask)[..., None, None], matrix, alone)
    factor: Array = torch.linalg.cholesky(matrix).permute(3, 4, 0, 1, 2).float().numpy()
    return np.ascontiguousarray(factor)
