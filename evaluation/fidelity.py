"""Do synthetic maps look like real ones? Values, features and texture, blind to who is who."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison import Measure, Statistic, Table, mean_difference, weights
from evaluation.distance import median_distance, squared_distances
from evaluation.profile import BINS, REGION_BINS, Frame, Profiles

_COMPONENTS = 8
_NEIGHBOURS = 5
_PER_STRETCH = 128
MOST = 400

Rows = NDArray[np.int64]


def measures(pooled: Profiles, train: Profiles, frame: Frame, n: int) -> list[Measure]:
    """What fidelity is judged by; the first `n` of the pooled volumes are synthetic.

    Tolerances: 0.02 of kernel distance is what 5 % of noise on FA costs on the simulated cohort;
    0.01 FA and 20 um2/s are below the differences between two scanners.
    """
    points = standardised(pooled.features, train.features)
    reference = standardised(train.features, train.features)
    out = [
        Measure("kernel_distance", "Kernel distance of features", "",
                kernel(points, median_distance(reference)), "above", 0.02),
        Measure("frechet_distance", f"Frechet distance of {_COMPONENTS} feature components", "",
                frechet(components(points, reference)), "above", needed=2 * _COMPONENTS),
    ]  # fmt: skip
    for name, tail in (("precision", "below"), ("recall", "below"),
                       ("density", "below"), ("coverage", "below")):  # fmt: skip
        index = ("precision", "recall", "density", "coverage").index(name)
        out.append(
            Measure(name, f"{name.capitalize()} (k = {_NEIGHBOURS})", "",
                    neighbours(points, index, few(n, len(pooled))),
                    tail, needed=2 * _NEIGHBOURS)  # type: ignore[arg-type]
        )  # fmt: skip
    for k, spec in enumerate(frame.maps):
        unit, factor, tolerance = ("", 1.0, 0.01) if spec.name == "fa" else ("um2/s", 1e6, 20.0)
        bins = pooled.histograms[:, k]
        out.append(
            Measure(f"{spec.name}_histogram", f"{spec.label} histogram (Wasserstein)", unit,
                    wasserstein(bins, spec.maximum / BINS), "above", tolerance, factor)
        )  # fmt: skip
        flat = pooled.region_histograms[:, k]
        out.append(
            Measure(f"{spec.name}_region_histograms", f"{spec.label} histograms of regions", unit,
                    wasserstein(flat, spec.maximum / REGION_BINS), "above", 4 * tolerance, factor,
                    frame.names)
        )  # fmt: skip
        out.append(
            Measure(f"{spec.name}_spectrum", f"{spec.label} power spectrum", "dB",
                    mean_difference(pooled.spectrum[:, k]), "both", 1.0, 10.0,
                    bands(frame.space.zooms, pooled.spectrum.shape[2]))
        )  # fmt: skip
    return out


def standardised(features: Table, reference: Table) -> Table:
    """Features in units of their spread in a reference set; those that hardly vary are left out.

    Values are cut at 20 spreads: a volume in wrong units is far away, not infinitely so.
    """
    sd = reference.std(axis=0)
    # Blocks at the rim that hold a few voxels of one or two brains would dominate.
    keep = (sd > 0) & ((reference != 0).mean(axis=0) > 0.5)
    points = (features[:, keep] - reference[:, keep].mean(axis=0)) / sd[keep]
    cut: Table = np.clip(points, -20, 20)
    return cut


def kernel(points: Table, bandwidth: float) -> Statistic:
    """Unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) with an RBF kernel."""

    def statistic(first: Table, second: Table) -> Table:
        n, m = first.sum(axis=1), second.sum(axis=1)
        within, other, between = -n, -m, np.zeros(len(first))
        for start in range(0, len(points), _PER_STRETCH):  # never all pairs at once
            stretch = slice(start, start + _PER_STRETCH)
            near = np.exp(-squared_distances(points, points[stretch]) / (2 * bandwidth**2))
            to_first = first @ near
            within = within + (to_first * first[:, stretch]).sum(axis=1)
            other = other + ((second @ near) * second[:, stretch]).sum(axis=1)
            between = between + (to_first * second[:, stretch]).sum(axis=1)
        out: Table = within / (n * (n - 1)) + other / (m * (m - 1)) - 2 * between / (n * m)
        return out[:, None]

    return statistic


def components(points: Table, reference: Table) -> Table:
    """Leading principal components of the reference, in units of the first one's spread."""
    centre = reference.mean(axis=0)
    _, size, axes = np.linalg.svd(reference - centre, full_matrices=False)
    scale = size[0] / np.sqrt(max(len(reference) - 1, 1))
    out: Table = (points - centre) @ axes[:_COMPONENTS].T / scale
    return out


def frechet(points: Table) -> Statistic:
    """Frechet distance of two Gaussians (Dowson & Landau 1982): |m - m'|^2 + tr(C + C' -
    2 (C C')^1/2)."""
    outer = (points[:, :, None] * points[:, None, :]).reshape(len(points), -1)
    d = points.shape[1]

    def moments(group: Table) -> tuple[Table, Table]:
        share, n = weights(group), group.sum(axis=1)
        mean = share @ points
        second = (share @ outer).reshape(-1, d, d) - mean[:, :, None] * mean[:, None, :]
        return mean, second * (n / (n - 1))[:, None, None]

    def statistic(first: Table, second: Table) -> Table:
        (a, c), (b, e) = moments(first), moments(second)
        # The eigenvalues of a product of two covariances are real and not negative.
        roots = np.sqrt(np.maximum(np.linalg.eigvals(c @ e).real, 0)).sum(axis=1)
        trace = np.trace(c + e, axis1=1, axis2=2)
        out: Table = ((a - b) ** 2).sum(axis=1) + trace - 2 * roots
        return out[:, None]

    return statistic


def few(n: int, total: int) -> Rows:
    """The first 400 of the first `n` and of the others: for what needs all pairs at once, so that
    memory does not grow with their number."""
    return np.concatenate([np.arange(min(n, MOST)), np.arange(n, min(total, n + MOST))])


def neighbours(points: Table, which: int, rows: Rows) -> Statistic:
    """Precision, recall (Kynkaanniemi et al. 2019), density or coverage (Naeem et al. 2020), of
    some rows of the points."""
    distance = np.sqrt(squared_distances(points[rows], points[rows]))

    def one(first: Table, second: Table) -> float:
        a, b = np.flatnonzero(first), np.flatnonzero(second)
        between = distance[np.ix_(a, b)]  # synthetic x real
        real = _radius(distance[np.ix_(b, b)])
        if which == 0:
            return float((between <= real).any(axis=1).mean())
        if which == 1:
            made = _radius(distance[np.ix_(a, a)])
            return float((between <= made[:, None]).any(axis=0).mean())
        if which == 2:
            return float((between <= real).sum(axis=1).mean() / _NEIGHBOURS)
        return float((between.min(axis=0) <= real).mean())

    def statistic(first: Table, second: Table) -> Table:
        values = [one(a, b) for a, b in zip(first[:, rows], second[:, rows], strict=True)]
        return np.array(values)[:, None]

    return statistic


def _radius(within: Table) -> Table:
    k = min(_NEIGHBOURS, len(within) - 1)  # a point is its own nearest neighbour
    out: Table = np.partition(within, k, axis=1)[:, k]
    return out


def wasserstein(shares: Table, width: float) -> Statistic:
    """Wasserstein-1 distance of two groups' mean histograms: the area between their distribution
    functions, exact to the bin width.

    Parameters
    ----------
    shares : (subjects, bins) or (subjects, parts, bins), each histogram summing to one.
    """
    cumulative = np.cumsum(shares, axis=-1)
    parts = cumulative.reshape(len(shares), -1, shares.shape[-1])

    def statistic(first: Table, second: Table) -> Table:
        difference = weights(first) - weights(second)
        out = np.empty((len(first), parts.shape[1]))
        for start in range(0, len(first), _PER_STRETCH):  # rows x parts x bins at once is too much
            stretch = difference[start : start + _PER_STRETCH]
            gap = np.tensordot(stretch, parts, axes=1)
            out[start : start + _PER_STRETCH] = np.abs(gap).sum(axis=2) * width
        return out

    return statistic


def bands(zooms: Sequence[float] | NDArray[np.float64], count: int) -> tuple[str, ...]:
    """Wavelengths of the spectrum's bands."""
    finest = 2 * max(zooms)
    edges = [finest * count / k if k else None for k in range(count + 1)]
    return tuple(
        f"{edges[k + 1]:.0f} mm and longer" if edges[k] is None
        else f"{edges[k + 1]:.0f} to {edges[k]:.0f} mm"
        for k in range(count)
    )  # fmt: skip
