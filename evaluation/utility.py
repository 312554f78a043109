"""Can one learn from synthetic maps what one learns from real ones?

Learners are trained on one set and always tested on held-out real subjects.
"""

from __future__ import annotations

import numpy as np

from evaluation.comparison import Measure, Statistic, Table
from evaluation.distance import squared_distances
from evaluation.fidelity import standardised
from evaluation.finding import Finding
from evaluation.profile import Profiles

_RIDGE = 0.1
_SIZES = (8, 16, 32, 64, 128, 256)
_DRAWS = 20


def measures(pooled: Profiles, test: Profiles, train: Profiles) -> list[Measure]:
    """What utility is judged by: learners of age and sex trained on synthetic maps against the
    same learners trained on as many real ones.

    The learner is kernel ridge regression on features: it has no random start, and can be
    trained anew for each regrouping of the pooled (synthetic, then real) training sets.
    """
    lean = _Learner(pooled, test, train)
    return [
        Measure("age_error", "Age read by a learner trained on synthetic, error more than trained "
                "on real", "years", lean.age_gap(), "above", 3.0),
        Measure("sex_auc", "Sex read by a learner trained on synthetic, area under ROC less than "
                "trained on real", "", lean.sex_gap(), "above", 0.15),
    ]  # fmt: skip


class _Learner:
    def __init__(self, pooled: Profiles, test: Profiles, train: Profiles) -> None:
        known = standardised(pooled.features, train.features)
        new = standardised(test.features, train.features)
        # Distances beyond those among real subjects carry no more information.
        width = known.shape[1]
        self._inner = np.exp(-squared_distances(known, known) / (2 * width))
        self._cross = np.exp(-squared_distances(new, known) / (2 * width))
        self._age, self._sex = pooled.age, 2 * pooled.male - 1
        self._truth_age, self._truth_sex = test.age, test.male > 0

    def predict(self, member: Table, target: Table) -> Table:
        """What a learner trained on the member subjects says of the test subjects."""
        rows = np.flatnonzero(member)
        mean = target[rows].mean()
        inner = self._inner[np.ix_(rows, rows)] + _RIDGE * np.eye(len(rows))
        out: Table = mean + self._cross[:, rows] @ np.linalg.solve(inner, target[rows] - mean)
        return out

    def age_error(self, member: Table) -> float:
        """Mean absolute error in years."""
        return float(np.abs(self.predict(member, self._age) - self._truth_age).mean())

    def sex_auc(self, member: Table) -> float:
        """Area under the ROC curve."""
        said = self.predict(member, self._sex)
        men, women = said[self._truth_sex], said[~self._truth_sex]
        if not len(men) or not len(women):
            return 0.5
        return float(((men[:, None] > women) + 0.5 * (men[:, None] == women)).mean())

    def age_gap(self) -> Statistic:
        def statistic(first: Table, second: Table) -> Table:
            gaps = [
                self.age_error(a) - self.age_error(b) for a, b in zip(first, second, strict=True)
            ]
            return np.array(gaps)[:, None]

        return statistic

    def sex_gap(self) -> Statistic:
        def statistic(first: Table, second: Table) -> Table:
            gaps = [self.sex_auc(b) - self.sex_auc(a) for a, b in zip(first, second, strict=True)]
            return np.array(gaps)[:, None]

        return statistic


def augmentation(synthetic: Profiles, train: Profiles, test: Profiles, seed: int = 0) -> Finding:
    """Age error of real + synthetic less that of real alone, as a function of real subjects.

    The interval is over draws of the real subjects and, by a bootstrap, the test subjects.
    """
    rng = np.random.default_rng(seed)
    pooled = synthetic.followed_by(train)
    learner = _Learner(pooled, test, train)
    made = np.zeros(len(pooled))
    made[: len(synthetic)] = 1
    details: dict[str, tuple[float, float, float]] = {}
    sizes = [s for s in _SIZES if s < len(train)] + [len(train)]
    for size in sizes:
        gains = []
        for _ in range(_DRAWS):
            real = np.zeros(len(pooled))
            real[len(synthetic) + rng.permutation(len(train))[:size]] = 1
            alone = np.abs(learner.predict(real, pooled.age) - test.age)
            both = np.abs(learner.predict(real + made, pooled.age) - test.age)
            again = rng.integers(len(test), size=len(test))
            gains.append(float((both - alone)[again].mean()))
        low, high = np.quantile(gains, [0.025, 0.975])
        details[f"{size} real"] = (float(np.mean(gains)), float(low), float(high))
    value, low, high = details[f"{sizes[-1]} real"]
    return Finding(
        "augmentation", "Age error of real + synthetic less that of real alone", "years",
        value, low, high, details=details,
    )  # fmt: skip
