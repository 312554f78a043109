"""Trials of earlier studies, from which the sampler of a new one learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contracts.errors import UserError
from training.search.database import open_storage, url_of
from training.search.study import CONFIG, RESULT, Study

# Name of the study's attribute that tells what its scores depend on.
SCORED_BY = "scored by"


def learn(study: Study, names: tuple[str, ...], folder: Path, scored_by: str) -> int:
    """Adds the results of earlier studies to a new one, and returns how many.

    They are no slots: nothing that was asked for is counted as done. Trials whose settings are not
    among the new study's choices are left out.

    Parameters
    ----------
    names : of the earlier studies.
    folder : that holds a folder for each study.
    scored_by : what the scores depend on; the earlier studies must have the same.

    Raises
    ------
    UserError : if there is no such study, or its scores mean something else.
    """
    if study.remembered(SCORED_BY, scored_by) != scored_by:
        raise UserError(f"the study {study.name} was scored in another way: delete it")
    if study.records():
        return 0
    added = 0
    for name in names:
        for config, result in _done(name, folder, scored_by):
            try:
                study.space.params(config)
            except UserError:
                continue
            added += study.learn(config, result, name)
    return added


def _done(name: str, folder: Path, scored_by: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    import optuna

    url = url_of(folder / name)
    try:
        found = optuna.load_study(study_name=name, storage=open_storage(url))
    except (KeyError, UserError) as error:
        raise UserError(
            f"tune.start_from: no study {name} in {folder}: expected the name of a folder there"
        ) from error
    if found.user_attrs.get(SCORED_BY) != scored_by:
        raise UserError(
            f"tune.start_from: the scores of {name} are of another base, other data, code or "
            "number of samples, and cannot be compared with new ones: leave it out"
        )
    done = found.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return [(t.user_attrs[CONFIG], t.user_attrs[RESULT]) for t in done]
