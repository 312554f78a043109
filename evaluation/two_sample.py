"""Classifier two-sample test: can a simple classifier tell synthetic from real volumes?

Lopez-Paz & Oquab (2017), "Revisiting classifier two-sample tests". The score is the area under the
ROC curve (AUC) of predictions for volumes that the classifier was not fitted to: 0.5 if the two
sets cannot be told apart, 1 if they always can.
"""

from __future__ import annotations

import numpy as np

from evaluation.comparison import Float64Array, Statistic

CHANCE = 0.5
AUC_RANGE = (0.0, 1.0)
# Penalty of the ridge regression, for features of unit spread: about one volume's weight.
_RIDGE = 1.0
# Values beyond this many spreads (half of the central 68 %) are cut off: one odd volume must
# not decide.
_LARGEST = 5.0


def classifier_auc(features: Float64Array) -> Statistic:
    """Returns the AUC of a linear classifier, by leave-pair-out cross-validation.

    The classifier is ridge regression on the label (1 or -1), which is Fisher's linear
    discriminant but for the penalty. The AUC is the share of pairs of a synthetic and a real
    volume in which the synthetic one gets the higher value from the classifier that was fitted
    without the two. Leaving out single volumes would give less than 0.5 for equal sets (Airola et
    al. 2011). With H the hat matrix, the values of a left-out pair S are y - (I - H_SS)^-1 (y - H
    y). H does not depend on the labels, so that permutations need no further fits.

    Parameters
    ----------
    features : (n, F), of the pooled volumes.
    """
    hat = _hat_matrix(features)
    # (I - H)_SS = [[a, b], [b, c]] for each pair; the inverse is [[c, -b], [-b, a]] / (ac - b^2).
    own = 1 - np.diag(hat)
    between = -hat
    determinant = own[:, None] * own[None, :] - between**2
    np.fill_diagonal(determinant, 1)

    def auc(labels: Float64Array, residual: Float64Array) -> float:
        first, second = np.flatnonzero(labels > 0), np.flatnonzero(labels < 0)
        pair = np.ix_(first, second)
        r, s = residual[first][:, None], residual[second][None, :]
        a, b, c = own[first][:, None], between[pair], own[second][None, :]
        # Predicted difference, times the determinant, which is positive.
        gap = 2 * determinant[pair] - ((c * r - b * s) - (a * s - b * r))
        return float((gap > 0).mean() + 0.5 * (gap == 0).mean())

    def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
        # A volume that belongs to neither group (jackknife) has the label 0 between both.
        labels = first - second
        residual = labels - labels @ hat
        return np.array([auc(*row) for row in zip(labels, residual, strict=True)])[:, None]

    return statistic


def _hat_matrix(features: Float64Array) -> Float64Array:
    """Returns the (n, n) matrix that takes labels to fitted values, intercept included."""
    low, middle, high = np.quantile(features, [0.16, 0.5, 0.84], axis=0)
    # Where most volumes have one value, quantiles show no spread, and the deviation does.
    scale = np.where(high > low, (high - low) / 2, features.std(axis=0))
    x = (features - middle)[:, scale > 0] / scale[scale > 0]
    x = np.clip(x, -_LARGEST, _LARGEST)
    x = x - x.mean(axis=0)
    inner = x.T @ x + _RIDGE * np.eye(x.shape[1])
    hat: Float64Array = x @ np.linalg.solve(inner, x.T) + 1 / len(x)
    return hat
