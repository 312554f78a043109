"""Which trial of a search is the best, and why, said in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.objective import name_of
from training.trial import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

# Below this a ranking of settings by importance would be noise.
_ENOUGH_FOR_IMPORTANCE = 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a search.

    Parameters
    ----------
    best : nearest to the validation subjects among the trials within the bound on copies; None
        if there is no such trial.
    ranking : trials with a result, nearest first.
    failed : trials without.
    why : a few sentences.
    """

    best: Trial | None
    ranking: tuple[Trial, ...]
    failed: tuple[Trial, ...]
    why: tuple[str, ...]


def judge(
    trials: Sequence[Trial],
    default: str,
    bound: float,
    importances: Mapping[str, float] | None = None,
) -> Verdict:
    """Choose the best trial.

    Parameters
    ----------
    default : key of the trial with the hand-picked settings.
    bound : largest allowed copy share.
    importances : see there.
    """
    ranking = sorted((t for t in trials if not t.failed), key=lambda t: t.val_regional_distance)
    failed = tuple(t for t in trials if t.failed)
    allowed = [t for t in ranking if t.copy_share <= bound]
    best = allowed[0] if allowed else None
    why = _why(best, ranking, allowed, default, bound) if best else [_nobody(ranking, bound)]
    if best:
        why.append(_which_setting(len(ranking), importances))
        why.append("Every trial was trained once, from one seed: a small difference may be chance.")
    return Verdict(best, tuple(ranking), failed, tuple(why))


def _why(
    best: Trial, ranking: list[Trial], allowed: list[Trial], default: str, bound: float
) -> list[str]:
    place = ranking.index(best) + 1
    said = [
        f"{name_of(best.config)} won: its regional distance to the validation subjects, "
        f"{best.val_regional_distance:.4f}, is number {place} of {len(ranking)}."
    ]
    if place > 1:
        said.append(
            f"{place - 1} came nearer, but copied: their copy share is above the bound {bound:g}."
        )
    if len(allowed) > 1:
        second = allowed[1]
        ahead = second.val_regional_distance - best.val_regional_distance
        said.append(f"It is {ahead:.4f} ahead of the second, {name_of(second.config)}.")
    picked = next((t for t in ranking if t.key == default), None)
    if picked is None:
        said.append("The hand-picked settings failed, so there is no comparison with them.")
    elif picked is best:
        said.append("These are the hand-picked settings: no other trial beat them.")
    else:
        ahead = picked.val_regional_distance - best.val_regional_distance
        side = "ahead of" if ahead >= 0 else "behind"
        said.append(
            f"It is {abs(ahead):.4f} {side} the hand-picked settings "
            f"({picked.val_regional_distance:.4f}, copy share {picked.copy_share:.2f})."
        )
    said.append(
        f"Its copy share is {best.copy_share:.2f} (bound {bound:g}). It trains "
        f"{best.trainable:,} parameters, {100 * best.trainable_share:.2f} % of the network, in a "
        f"file of {best.adapter_bytes / 1024:.0f} KiB."
    )
    return said


def _nobody(ranking: list[Trial], bound: float) -> str:
    if not ranking:
        return "No trial has a result, so there is nothing to choose."
    least = min(trial.copy_share for trial in ranking)
    return (
        f"No trial kept its copy share at or below {bound:g} (the least is {least:.2f}): nothing "
        "is chosen. Try fewer steps or a lower rank, or raise tune.max_copy_share."
    )


def _which_setting(n: int, importances: Mapping[str, float] | None) -> str:
    if importances is None:
        return f"{n} trials are too few to say which setting mattered."
    ordered = sorted(importances.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ordered)
    return f"Share of the differences that each setting explains, a hint from {n} trials: {shares}."


def importances(
    trials: Sequence[Trial], distributions: Mapping[str, BaseDistribution]
) -> dict[str, float] | None:
    """Share of the spread in distance that each setting explains; None with too few trials.

    Functional ANOVA on a random forest (Hutter et al. 2014), as Optuna has it.
    """
    good = [trial for trial in trials if not trial.failed]
    if len(good) < _ENOUGH_FOR_IMPORTANCE:
        return None
    import optuna

    study = optuna.create_study()
    for trial in good:
        study.add_trial(
            optuna.trial.create_trial(
                params=trial.config,
                distributions=dict(distributions),
                value=trial.val_regional_distance,
            )
        )
    found = optuna.importance.get_param_importances(
        study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
    )
    return {name: float(share) for name, share in found.items()}


def table(verdict: Verdict, default: str) -> str:
    """The trials as text, nearest first, failed ones last."""
    heads = ("", "settings", "regional distance", "copies", "trained", "KiB", "s")
    rows = [heads, *(_row(trial, verdict, default) for trial in verdict.ranking)]
    for trial in verdict.failed:
        rows.append(("", name_of(trial.config), "failed", "", "", "", f"{trial.seconds:.0f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = []
    for row in rows:
        left = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right).rstrip())
    lines += [f"{name_of(trial.config)}: {trial.failure}" for trial in verdict.failed]
    return "\n".join(lines)


def _row(trial: Trial, verdict: Verdict, default: str) -> tuple[str, ...]:
    marks = ("best" if trial is verdict.best else "", "by hand" if trial.key == default else "")
    return (
        " ".join(filter(None, marks)),
        name_of(trial.config),
        f"{trial.val_regional_distance:.4f}",
        f"{trial.copy_share:.2f}",
        f"{100 * trial.trainable_share:.2f} %",
        f"{trial.adapter_bytes / 1024:.0f}",
        f"{trial.seconds:.0f}",
    )
