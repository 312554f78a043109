"""What a study's trials say together: the hypervolume as it grows, and which choices mattered."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from training.search import choice as choosing
from training.search.pareto import hypervolume
from training.search.records import Record, State
from training.search.settings import TuneSettings
from training.search.study import Study

# Below this a ranking of choices by importance would be noise.
_ENOUGH_FOR_IMPORTANCE = 10


def reference(slots: Sequence[Record], settings: TuneSettings, hand_picked: int) -> list[float]:
    """Returns the reference point of the hypervolume: a tenth beyond the worst hand-picked trial.

    Every study of these settings has the same hand-picked trials, so that their hypervolumes can be
    compared. A trial that is worse adds nothing.

    Parameters
    ----------
    hand_picked : how many slots, the first ones, have hand-picked settings.
    """
    by_hand = [one for one in choosing.done(slots) if one.slot < hand_picked]
    values = np.array([[float(r.result[k]) for k in settings.objectives] for r in by_hand])
    # At least a little: an objective may be zero for all of them.
    return (1.1 * values.max(axis=0) + 1e-9).tolist() if len(by_hand) else []


def growth(
    slots: Sequence[Record], settings: TuneSettings, worst: Sequence[float]
) -> list[tuple[float, float]]:
    """Returns when each trial ended, in that order, and the hypervolume after it.

    Objectives are divided by the reference point, so that all points are between 0 and 1. Trials
    beyond a limit, and those without a result, add nothing.
    """
    over = sorted((r for r in slots if r.ended), key=lambda r: (r.ended, r.number))
    values: list[list[float]] = []
    found = []
    for one in over:
        if one.state is State.DONE and choosing.allowed(one, settings):
            values.append([float(one.result[k]) for k in settings.objectives])
        points = np.array(values).reshape(-1, len(worst)) / np.array(worst)
        found.append((one.ended, hypervolume(points, np.ones(len(worst)))))
    return found


def importances(study: Study) -> dict[str, float]:
    """Returns which share of the best trials each choice explains; nothing with too few trials.

    PED-ANOVA (Watanabe et al. 2023), as Optuna has it, on the regional distance. It takes choices
    that depend on the method, too.
    """
    import optuna

    good = [r for r in study.slots() if r.state is State.DONE]
    if len(good) < _ENOUGH_FOR_IMPORTANCE:
        return {}
    first = study.settings.objectives.index("regional_distance")
    with warnings.catch_warnings():
        # It warns of choices that few trials had; the page calls all of it a hint.
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(
            study.study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: trial.values[first],
        )
    return {name: float(share) for name, share in found.items()}
