"""Do synthetic maps differ from each other as people do, and cover all ages and both sexes?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.comparison import Measure, Statistic, Table, mean_difference, weights
from evaluation.fidelity import Rows, few, standardised
from evaluation.ms_ssim import pair_matrix
from evaluation.profile import Profiles

# Pairs grow with the square: 24 volumes a side make 1128.
MOST = 24
_AGE_CELLS = 3


def similarity(first: NDArray[np.float32], second: NDArray[np.float32], maximum: float) -> Table:
    """MS-SSIM of all pairs of the first 24 images of two groups of (n, X, Y, Z), pooled."""
    images = np.concatenate([first[:MOST], second[:MOST]])
    return pair_matrix(np.nan_to_num(images, posinf=0, neginf=0), maximum)


def measures(pooled: Profiles, train: Profiles, pairs: Table, n: int) -> list[Measure]:
    """What diversity is judged by; the first `n` pooled volumes are synthetic.

    Parameters
    ----------
    pairs : FA `similarity` of the two groups.
    """
    points = standardised(pooled.features, train.features)
    return [
        Measure("fa_ms_ssim", "MS-SSIM of pairs, FA", "", _similar(pairs, n, len(pooled)),
                "above", 0.02),
        Measure("variance", "Variance of features, log of its ratio to real", "",
                _variance(points), "below", 0.35),
        Measure("dimension", "Effective dimension, log of its ratio to real", "",
                _dimension(points, few(n, len(pooled))), "below", 0.4),
        Measure("conditions", "Ages and sexes, share that would have to move", "",
                _cells(pooled), "above", 0.2),
    ]  # fmt: skip


def _similar(pairs: Table, n: int, total: int) -> Statistic:
    """Mean over pairs of the first group less that of the second."""
    chosen = np.concatenate([np.arange(n)[:MOST], np.arange(n, total)[:MOST]])
    off = pairs - np.diag(np.diag(pairs))

    def mean(group: Table) -> Table:
        member = group[:, chosen]
        size = member.sum(axis=1)
        out: Table = ((member @ off) * member).sum(axis=1) / np.maximum(size * (size - 1), 1)
        return out

    def statistic(first: Table, second: Table) -> Table:
        difference: Table = mean(first) - mean(second)
        return difference[:, None]

    return statistic


def _variance(points: Table) -> Statistic:
    square = (points**2).sum(axis=1)

    def trace(group: Table) -> Table:
        share = weights(group)
        n = group.sum(axis=1)
        out: Table = (share @ square - ((share @ points) ** 2).sum(axis=1)) * n / (n - 1)
        return out

    def statistic(first: Table, second: Table) -> Table:
        ratio: Table = np.maximum(trace(first), 1e-9) / np.maximum(trace(second), 1e-9)
        logs: Table = np.log(ratio)
        return logs[:, None]

    return statistic


def _dimension(points: Table, chosen: Rows) -> Statistic:
    """(sum of eigenvalues)^2 / (sum of their squares) of each group's covariance."""
    gram = points[chosen] @ points[chosen].T

    def one(member: Table) -> float:
        rows = np.flatnonzero(member)
        inner = gram[np.ix_(rows, rows)]
        inner = inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()
        return float(np.trace(inner) ** 2 / max((inner**2).sum(), 1e-12))

    def statistic(first: Table, second: Table) -> Table:
        pairs = zip(first[:, chosen], second[:, chosen], strict=True)
        ratios = [max(one(a), 1e-3) / max(one(b), 1e-3) for a, b in pairs]
        logs: Table = np.log(np.array(ratios))
        return logs[:, None]

    return statistic


def _cells(pooled: Profiles) -> Statistic:
    """Total variation between two groups' shares of age thirds and sexes."""
    edges = np.quantile(pooled.age, np.arange(1, _AGE_CELLS) / _AGE_CELLS)
    cell = np.searchsorted(edges, pooled.age) + _AGE_CELLS * pooled.male.astype(int)
    member = (cell[:, None] == np.arange(2 * _AGE_CELLS)).astype(float)
    difference = mean_difference(member)

    def statistic(first: Table, second: Table) -> Table:
        moved: Table = np.abs(difference(first, second)).sum(axis=1) / 2
        return moved[:, None]

    return statistic
