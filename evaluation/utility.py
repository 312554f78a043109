"""The question of utility: what a learner of age and sex gains from synthetic volumes.

Learners are trained on synthetic or real volumes and always tested on held-out real subjects.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from evaluation.block_features import standardised
from evaluation.comparison import Float64Array, Measure, Statistic
from evaluation.measurements import Measurements
from evaluation.results import Finding

_RIDGE = 0.1
_REAL_SUBJECTS = (8, 16, 32, 64, 128, 256)
_DRAWS = 20


def measures(pooled: Measurements, test: Measurements, train: Measurements) -> list[Measure]:
    """Returns the measures of utility.

    Learners trained on synthetic volumes are compared with the same learners trained on as many
    real ones.

    Parameters
    ----------
    pooled : of the synthetic volumes and, after them, of as many training subjects.
    test : of the held-out real subjects.
    train : of the real subjects that the generator was trained on, whose features set the scale.
    """
    learner = _KernelRidge(pooled, test, train)
    return [
        Measure("age_error", "Age read by a learner trained on synthetic, error more than trained "
                "on real", "years", learner.age_error_difference(), "above", 3.0),
        Measure("sex_auc", "Sex read by a learner trained on synthetic, area under ROC less than "
                "trained on real", "", learner.sex_auc_difference(), "above", 0.15),
    ]  # fmt: skip


class _KernelRidge:
    """Kernel ridge regression of age and sex on features.

    It has no random start, and is trained on any group of the pooled volumes from one matrix of
    kernels, so that it can be trained anew for each permutation. (`sklearn.kernel_ridge` gives
    the same predictions and would compute the kernels for each.)
    """

    def __init__(self, pooled: Measurements, test: Measurements, train: Measurements) -> None:
        known = standardised(pooled.features, train.features)
        new = standardised(test.features, train.features)
        # The squared distance of two real subjects is about 2 * width, since features are
        # standardised; their kernel is then about exp(-1).
        width = known.shape[1]
        self._kernel = np.exp(-cdist(known, known, "sqeuclidean") / (2 * width))
        self._test_kernel = np.exp(-cdist(new, known, "sqeuclidean") / (2 * width))
        self._age, self._sex = pooled.age, 2 * pooled.male - 1
        self._test_age, self._test_male = test.age, test.male > 0

    def predict(self, member: Float64Array, target: Float64Array) -> Float64Array:
        """Returns predictions for the test subjects, (test,).

        Parameters
        ----------
        member : (pooled,), 1 for the volumes that are trained on and 0 for others.
        target : (pooled,), what is predicted.
        """
        rows = np.flatnonzero(member)
        mean = target[rows].mean()
        kernel = self._kernel[np.ix_(rows, rows)] + _RIDGE * np.eye(len(rows))
        dual = np.linalg.solve(kernel, target[rows] - mean)
        predicted: Float64Array = mean + self._test_kernel[:, rows] @ dual
        return predicted

    def age_error(self, member: Float64Array) -> float:
        """Returns the mean absolute error of the age in years."""
        return float(np.abs(self.predict(member, self._age) - self._test_age).mean())

    def sex_auc(self, member: Float64Array) -> float:
        """Returns the area under the ROC curve of the sex, 0.5 for test subjects of one sex."""
        predicted = self.predict(member, self._sex)
        men, women = predicted[self._test_male], predicted[~self._test_male]
        if not len(men) or not len(women):
            return 0.5
        return float(((men[:, None] > women) + 0.5 * (men[:, None] == women)).mean())

    def age_error_difference(self) -> Statistic:
        """Returns the age error of training on the first group less that on the second."""

        def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
            groups = zip(first, second, strict=True)
            return np.array([self.age_error(a) - self.age_error(b) for a, b in groups])[:, None]

        return statistic

    def sex_auc_difference(self) -> Statistic:
        """Returns the area of training on the second group less that on the first."""

        def statistic(first: Float64Array, second: Float64Array) -> Float64Array:
            groups = zip(first, second, strict=True)
            return np.array([self.sex_auc(b) - self.sex_auc(a) for a, b in groups])[:, None]

        return statistic


def augmentation(
    synthetic: Measurements, train: Measurements, test: Measurements, seed: int = 0
) -> Finding:
    """Returns the age error of training on real + synthetic less that on real volumes alone.

    The finding's details give it for rising numbers of real subjects. The interval holds 95 % of
    20 draws of the real subjects, each with a bootstrap of the test subjects.
    """
    rng = np.random.default_rng(seed)
    pooled = synthetic.followed_by(train)
    learner = _KernelRidge(pooled, test, train)
    is_synthetic = np.zeros(len(pooled))
    is_synthetic[: len(synthetic)] = 1
    details: dict[str, tuple[float, float, float]] = {}
    sizes = [size for size in _REAL_SUBJECTS if size < len(train)] + [len(train)]
    for size in sizes:
        gains = []
        for _ in range(_DRAWS):
            real = np.zeros(len(pooled))
            real[len(synthetic) + rng.permutation(len(train))[:size]] = 1
            alone = np.abs(learner.predict(real, pooled.age) - test.age)
            both = np.abs(learner.predict(real + is_synthetic, pooled.age) - test.age)
            resampled = rng.integers(len(test), size=len(test))
            gains.append(float((both - alone)[resampled].mean()))
        low, high = np.quantile(gains, [0.025, 0.975])
        details[f"{size} real"] = (float(np.mean(gains)), float(low), float(high))
    value, low, high = details[f"{sizes[-1]} real"]
    return Finding(
        "augmentation", "Age error of real + synthetic less that of real alone", "years",
        value, low, high, details=details,
    )  # fmt: skip
