"""Utility for convolutional networks: trained on real, on synthetic and on both, tested on real."""

from __future__ import annotations

import math

import numpy as np

from contracts.console import progress
from contracts.maps import MapSpec
from evaluation.networks import (
    Float64Array,
    IndexArray,
    NetworkSettings,
    Predictions,
    TrainingPool,
    train_and_predict,
)
from evaluation.results import Finding
from evaluation.volume_set import VolumeSet


def compare_networks(
    synthetic: VolumeSet,
    train: VolumeSet,
    test: VolumeSet,
    maps: tuple[MapSpec, ...],
    settings: NetworkSettings,
) -> tuple[Finding, ...]:
    """Trains networks on each training set and compares their errors for real test subjects.

    For age (mean absolute error) and sex (area under the ROC curve) there are two findings:
    trained on synthetic less trained on as many real volumes, and trained on real + synthetic
    less trained on real alone. They are reported and decide nothing.

    Values are means over seeds. The 95 % intervals come from a bootstrap of seeds and, within
    each sex, of test subjects, with the same draws on both sides of a difference (the pigeonhole
    bootstrap; Owen 2007, Annals of Applied Statistics 1). With one seed they are over test
    subjects only. They do not cover the choice of the training subjects, apart from the choice of
    as many.

    Parameters
    ----------
    train, test : real subjects, none of whom may be in both. The first axis of the volumes runs
        from left to right and the third from bottom to top.
    maps : of the volumes.

    Returns
    -------
    Findings, whose ``details`` have the value of each training set. There are none about sex if
    all test subjects have the same.

    Raises
    ------
    ValueError : if a set is empty.
    """
    import torch

    if not (len(synthetic) and len(train) and len(test)):
        raise ValueError("expected at least one synthetic, one training and one test volume")
    sets = _training_sets(len(synthetic), len(train), settings)
    pool = TrainingPool(train, synthetic, maps, settings)
    steps = settings.epochs * math.ceil(len(train) / settings.batch)
    trainings = [(name, s) for name in sets for s in range(settings.seeds)]
    predictions: dict[str, list[Predictions]] = {name: [] for name in sets}
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for name, s in progress(trainings, len(trainings), f"{settings.dim.upper()} networks"):
            seed = settings.seed + s
            found = train_and_predict(pool, sets[name][s], test, steps, settings, seed)
            predictions[name].append(found)
    return _findings(predictions, _matched_name(len(synthetic), len(train)), train, test, settings)


def _training_sets(made: int, real: int, settings: NetworkSettings) -> dict[str, list[IndexArray]]:
    """Returns name of a training set -> for each seed, its rows of the pool (real first)."""
    k = min(made, real)
    sets: dict[str, list[IndexArray]] = {}
    for s in range(settings.seeds):
        rng = np.random.default_rng((settings.seed + s, 1))
        # If there are as many synthetic as real volumes, the first two have the same name, and
        # are the same set.
        rows = {
            _matched_name(made, real): np.sort(rng.permutation(real)[:k]),
            "real": np.arange(real),
            "synthetic": real + np.sort(rng.permutation(made)[:k]),
            "real + synthetic": np.arange(real + made),
        }
        for name, chosen in rows.items():
            sets.setdefault(name, []).append(chosen)
    return sets


def _matched_name(made: int, real: int) -> str:
    """Returns the name of the real training set that is as large as the synthetic one."""
    return "real" if made >= real else f"{made} real"


class _Bootstrap:
    """Bootstrap weights of seeds and test subjects, the same for every number of a comparison."""

    def __init__(self, test: VolumeSet, settings: NetworkSettings) -> None:
        rng = np.random.default_rng((settings.seed, 3))

        def weights(n: int) -> Float64Array:
            # The first row has equal weights and gives the value itself.
            even = np.full((1, n), 1 / max(n, 1))
            return np.concatenate([even, rng.multinomial(n, even[0], settings.draws) / n])

        self.age = np.array([c.age for c in test.conditions])
        self.male = np.array([c.sex == "M" for c in test.conditions])
        self.seeds = weights(settings.seeds)
        self.subjects = np.zeros((settings.draws + 1, len(test)))
        for rows in (np.flatnonzero(self.male), np.flatnonzero(~self.male)):
            if len(rows):
                self.subjects[:, rows] = weights(len(rows)) * len(rows) / len(test)

    def age_error(self, age: Float64Array) -> Float64Array:
        """Returns the mean absolute error, then that of each draw; (1 + draws,).

        Parameters
        ----------
        age : (seeds, subjects), predicted.
        """
        absolute = np.abs(age - self.age)
        error: Float64Array = ((self.seeds @ absolute) * self.subjects).sum(axis=1)
        return error

    def sex_auc(self, male: Float64Array) -> Float64Array:
        """Returns the area under the ROC curve, then that of each draw; (1 + draws,).

        Parameters
        ----------
        male : (seeds, subjects), predicted log odds.
        """
        men, women = (w / w.sum(axis=1, keepdims=True) for w in self._by_sex(self.subjects))
        area = np.zeros(len(self.seeds))
        for weight, predicted in zip(self.seeds.T, male, strict=True):
            of_men, of_women = self._by_sex(predicted[None])
            gap = of_men.T - of_women
            area += weight * ((men @ ((gap > 0) + 0.5 * (gap == 0))) * women).sum(axis=1)
        return np.minimum(area, 1.0)

    def _by_sex(self, columns: Float64Array) -> tuple[Float64Array, Float64Array]:
        return columns[:, self.male], columns[:, ~self.male]


def _findings(
    predictions: dict[str, list[Predictions]],
    matched: str,
    train: VolumeSet,
    test: VolumeSet,
    settings: NetworkSettings,
) -> tuple[Finding, ...]:
    """Returns the findings on age and on sex.

    Parameters
    ----------
    predictions : training set -> predictions of each seed.
    matched : the name of the real training set that is as large as the synthetic one.
    """
    bootstrap = _Bootstrap(test, settings)
    ages = {k: bootstrap.age_error(np.array([p.age for p in v])) for k, v in predictions.items()}
    guess = np.full((settings.seeds, len(test)), np.mean([c.age for c in train.conditions]))
    ages["age of the average training subject"] = bootstrap.age_error(guess)
    dim = settings.dim.upper()
    name = f"network_{settings.dim}"
    findings = _differences(
        ages, matched, f"{name}_age", f"Age read by a {dim} network, error", "years"
    )
    if 0 < bootstrap.male.sum() < len(test):
        sexes = {
            k: bootstrap.sex_auc(np.array([p.male for p in v])) for k, v in predictions.items()
        }
        label = f"Sex read by a {dim} network, area under ROC"
        findings += _differences(sexes, matched, f"{name}_sex", label, "")
    return findings


def _differences(
    scores: dict[str, Float64Array], matched: str, name: str, label: str, unit: str
) -> tuple[Finding, ...]:
    """Returns the two differences between training sets.

    Parameters
    ----------
    scores : training set -> (1 + draws,), the value first.
    """
    details = {k: _interval(v) for k, v in scores.items()}
    replaced = _interval(scores["synthetic"] - scores[matched])
    added = _interval(scores["real + synthetic"] - scores["real"])
    return (
        Finding(f"{name}_synthetic", f"{label}: trained on synthetic less trained on as many real",
                unit, *replaced, details=details),
        Finding(f"{name}_added", f"{label}: trained on real + synthetic less on real alone",
                unit, *added, details=details),
    )  # fmt: skip


def _interval(scores: Float64Array) -> tuple[float, float, float]:
    """Returns the value and the 95 % interval of its draws."""
    low, high = np.quantile(scores[1:], [0.025, 0.975])
    return float(scores[0]), float(low), float(high)
