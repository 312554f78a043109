"""The question of fidelity: the values, features and texture of synthetic and real volumes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from evaluation.age_sex import AgeSexStandardiser, adjusted
from evaluation.block_features import standardised
from evaluation.comparison import (
    Float64Array,
    Measure,
    Statistic,
    Tail,
    mean_difference,
    weights,
)
from evaluation.kernel_distance import kernel_distance, median_distance
from evaluation.local_texture import DECIDING, LABELS, NAMES
from evaluation.measurement_grid import MeasurementGrid
from evaluation.measurements import BINS, REGION_BINS, Measurements
from evaluation.two_sample import AUC_RANGE, CHANCE, classifier_auc

Neighbourhood = Literal["precision", "recall", "density", "coverage"]
IndexArray = NDArray[np.int64]

# Statistics that need all pairs of volumes at once use at most this many per group, so that an
# audit's memory does not grow with the square of its volumes.
MAX_PER_GROUP = 400

_COMPONENTS = 8
_NEIGHBOURS = 5
_NEIGHBOURHOODS: tuple[Neighbourhood, ...] = ("precision", "recall", "density", "coverage")
# Texture further from the expected one than this many standard deviations is cut off: three odd
# volumes would hide what the others have in common.
_LARGEST = 10.0
# Differences of cumulative histograms are computed in chunks of this many rows to bound memory.
_CHUNK = 128


def measures(
    pooled: Measurements, train: Measurements, grid: MeasurementGrid, n: int
) -> list[Measure]:
    """Returns the measures of fidelity.

    The tolerance of the kernel distance, 0.02, is what noise of 5 % on FA costs on the simulated
    cohort. Those of the histograms, 0.01 FA and 20 um2/s, are below the differences between two
    scanners. An AUC of 0.7 is where discrimination begins to be called acceptable (Hosmer &
    Lemeshow 2000). Measures of local texture are in standard deviations d between real people.

    Parameters
    ----------
    pooled : of the synthetic and, after them, of the held-out real volumes.
    train : of the real subjects that the generator was trained on.
    n : the number of synthetic volumes.
    """
    points = standardised(pooled.features, train.features)
    reference = standardised(train.features, train.features)
    found = [
        Measure("classifier_auc", "AUC of a classifier that sees local texture", "",
                classifier_auc(pooled.texture), "above", 0.2, chance=CHANCE, limits=AUC_RANGE),
        Measure("kernel_distance", "Kernel distance of features", "",
                kernel_distance(points, median_distance(reference)), "above", 0.02),
        Measure("frechet_distance", f"Frechet distance of {_COMPONENTS} feature components", "",
                frechet_distance(principal_components(points, reference)), "above",
                min_per_group=2 * _COMPONENTS),
    ]  # fmt: skip
    rows = first_of_each_group(n, len(pooled))
    tail: Tail = "below"
    found += [
        Measure(name, f"{name.capitalize()} (k = {_NEIGHBOURS})", "",
                neighbourhood(points, name, rows), tail, min_per_group=2 * _NEIGHBOURS)
        for name in _NEIGHBOURHOODS
    ]  # fmt: skip
    for k, spec in enumerate(grid.maps):
        unit, factor, tolerance = ("", 1.0, 0.01) if spec.name == "fa" else ("um2/s", 1e6, 20.0)
        found += [
            Measure(f"{spec.name}_histogram", f"{spec.label} histogram (Wasserstein)", unit,
                    wasserstein_distance(pooled.histograms[:, k], spec.maximum / BINS), "above",
                    tolerance, factor),
            Measure(f"{spec.name}_region_histograms", f"{spec.label} histograms of regions", unit,
                    wasserstein_distance(pooled.region_histograms[:, k],
                                         spec.maximum / REGION_BINS),
                    "above", 4 * tolerance, factor, grid.region_names),
            Measure(f"{spec.name}_spectrum", f"{spec.label} power spectrum", "dB",
                    mean_difference(pooled.spectrum[:, k]), "both", 1.0, 10.0,
                    wavelengths(grid.space.zooms, pooled.spectrum.shape[2])),
        ]  # fmt: skip
    return [*found, *texture_measures(pooled, train)]


def texture_measures(pooled: Measurements, train: Measurements) -> list[Measure]:
    """Returns the measures of local texture that decide, see `evaluation.local_texture`.

    Parameters
    ----------
    pooled, train : see `measures`.
    """
    _, y = AgeSexStandardiser(train)(train.texture, pooled.texture, pooled)
    y = np.clip(y, -_LARGEST, _LARGEST)
    broken = (pooled.pieces > 1).astype(np.float64)[:, None]
    return [
        *(
            Measure(name, LABELS[name], "d", adjusted(y[:, [k]], pooled), "both", 0.5)
            for k, name in enumerate(NAMES)
            if name in DECIDING
        ),
        Measure("pieces", "Share of brains in more than one piece", "", mean_difference(broken),
                "above", 0.05),
    ]  # fmt: skip


def principal_components(points: Float64Array, reference: Float64Array) -> Float64Array:
    """Returns the scores of points on the first 8 principal components of a reference, (n, 8).

    The unit is the standard deviation of the reference along its first component.
    """
    centre = reference.mean(axis=0)
    _, singular, axes = np.linalg.svd(reference - centre, full_matrices=False)
    scale = singular[0] / np.sqrt(max(len(reference) - 1, 1))
    scores: Float64Array = (points - centre) @ axes[:_COMPONENTS].T / scale
    return scores


def frechet_distance(points: Float64Array) -> Statistic:
    """Returns the Frechet distance of Gaussians fitted to the groups (Dowson & Landau 1982).

    It is |m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)) with means m and covariances C.

    Parameters
    ----------
    points : (n, d), the pooled volumes.
    """
    outer = (points[:, :, None] * points[:, None, :]).reshape(len(points), -1)
    d = points.shape[1]

    def moments(group: Float64Array) -> tuple[Float64Array, Float64Array]:
        share, n = weights(group), group.sum(axis=1)
        mean = share @ points
        covariance = (share @ outer).reshape(-1, d, d) - mean[:, :, None] * mean[:, None, :]
        return mean, covariance * (n / (n - 1))[:, None, None]

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        (mean, covariance), (other_mean, other_covariance) = moments(first), moments(second)
        # The eigenvalues of a product of two covariances are real and not negative.
        eigenvalues = np.linalg.eigvals(covariance @ other_covariance).real
        root_trace = np.sqrt(np.maximum(eigenvalues, 0)).sum(axis=1)
        trace = np.trace(covariance + other_covariance, axis1=1, axis2=2)
        distance: Float64Array = ((mean - other_mean) ** 2).sum(axis=1) + trace - 2 * root_trace
        return distance[:, None]

    return statistic


def first_of_each_group(n: int, total: int) -> IndexArray:
    """Returns the rows of the first 400 of the `n` synthetic and of the other volumes."""
    return np.concatenate(
        [np.arange(min(n, MAX_PER_GROUP)), np.arange(n, min(total, n + MAX_PER_GROUP))]
    )


def neighbourhood(points: Float64Array, name: Neighbourhood, rows: IndexArray) -> Statistic:
    """Returns how the groups lie among each other's nearest neighbours.

    ``precision`` and ``recall`` are those of Kynkaanniemi et al. (2019), ``density`` and
    ``coverage`` those of Naeem et al. (2020), with 5 neighbours.

    Parameters
    ----------
    points : (n, d), the pooled volumes.
    rows : the points that are used.
    """
    distance = cdist(points[rows], points[rows])

    def value(first: Float64Array, second: Float64Array) -> float:
        synthetic, real = np.flatnonzero(first), np.flatnonzero(second)
        between = distance[np.ix_(synthetic, real)]
        real_radius = _neighbour_distance(distance[np.ix_(real, real)])
        if name == "precision":
            return float((between <= real_radius).any(axis=1).mean())
        if name == "recall":
            radius = _neighbour_distance(distance[np.ix_(synthetic, synthetic)])
            return float((between <= radius[:, None]).any(axis=0).mean())
        if name == "density":
            return float((between <= real_radius).sum(axis=1).mean() / _NEIGHBOURS)
        return float((between.min(axis=0) <= real_radius).mean())

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        values = [value(a, b) for a, b in zip(first[:, rows], second[:, rows], strict=True)]
        return np.array(values)[:, None]

    return statistic


def _neighbour_distance(distance: Float64Array) -> Float64Array:
    """Returns each point's distance to its fifth neighbour, (n,), from (n, n) distances."""
    # A point is at distance zero of itself, which takes the first place.
    k = min(_NEIGHBOURS, len(distance) - 1)
    radius: Float64Array = np.partition(distance, k, axis=1)[:, k]
    return radius


def wasserstein_distance(shares: Float64Array, width: float) -> Statistic:
    """Returns the Wasserstein-1 distance between two groups' mean histograms.

    It is the area between the two distribution functions and exact to the width of a bin. SciPy's
    function of this name compares one pair of samples; this one compares all rows of groups in
    one matrix product.

    Parameters
    ----------
    shares : (volumes, bins) or (volumes, regions, bins); each histogram sums to one.
    width : the width of a bin.
    """
    cumulative = np.cumsum(shares, axis=-1)
    cumulative = cumulative.reshape(len(shares), -1, shares.shape[-1])

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        difference = weights(first) - weights(second)
        distance = np.empty((len(first), cumulative.shape[1]))
        for begin in range(0, len(first), _CHUNK):
            chunk = slice(begin, begin + _CHUNK)
            gap = np.tensordot(difference[chunk], cumulative, axes=1)
            distance[chunk] = np.abs(gap).sum(axis=2) * width
        return distance

    return statistic


def wavelengths(zooms: Sequence[float] | Float64Array, count: int) -> tuple[str, ...]:
    """Returns the names of a spectrum's `count` bands, from long to short waves.

    Parameters
    ----------
    zooms : edges of a voxel in mm.
    """
    shortest = 2 * max(zooms)
    edges = [shortest * count / k for k in range(1, count + 1)]
    first = f"{edges[0]:.0f} mm and longer"
    return (first, *(f"{b:.0f} to {a:.0f} mm" for a, b in pairwise(edges)))
