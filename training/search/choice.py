"""Which trial is chosen, by a rule that is written down, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.search.finalists import Interval, Rescored
from training.search.pareto import front
from training.search.records import Record, State
from training.search.settings import TuneSettings
from training.search.space import name_of

RULE = (
    "Trials beyond a limit are left out. The best of the rest, by the regional distance to the "
    "validation subjects, are scored again with seeds that no trial was scored with, and so are "
    "the hand-picked settings. The best of them leads. Chosen is the one that trains the fewest "
    "parameters among those that are not clearly worse than the leader: the 95 % interval of the "
    "paired difference, for other seeds and other people, reaches zero."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome of a study.

    Parameters
    ----------
    chosen, leader : None if no trial is within the limits.
    scores : of the finalists and the hand-picked trials, by number.
    hand_picked : trials with settings that nobody searched for; the first are those of params.yaml.
    """

    chosen: Record | None
    leader: Record | None
    scores: Mapping[int, Rescored]
    hand_picked: Sequence[Record]

    def against(self, other: Record) -> Interval:
        """Returns the chosen trial's distance less that of another one; below zero is better."""
        assert self.chosen is not None
        return self.scores[self.chosen.number].less(self.scores[other.number])


def done(slots: Sequence[Record]) -> list[Record]:
    """Returns the trials with a result, best quality first."""
    found = [one for one in slots if one.state is State.DONE]
    return sorted(found, key=lambda one: float(one.result["regional_distance"]))


def allowed(one: Record, settings: TuneSettings) -> bool:
    """Returns whether a trial is within the limits."""
    return all(one.result[name] <= limit for name, limit in settings.limits.items())


def on_front(slots: Sequence[Record], settings: TuneSettings) -> list[Record]:
    """Returns the trials on the Pareto front of those within the limits."""
    found = [one for one in done(slots) if allowed(one, settings)]
    if not found:
        return []
    values = np.array([[float(r.result[k]) for k in settings.objectives] for r in found])
    return [one for one, keeps in zip(found, front(values), strict=True) if keeps]


def finalists(slots: Sequence[Record], settings: TuneSettings, hand_picked: int) -> list[Record]:
    """Returns the trials to score again: the best within the limits, and the hand-picked ones.

    Parameters
    ----------
    hand_picked : how many slots, the first ones, have hand-picked settings.
    """
    best = [one for one in done(slots) if allowed(one, settings)][: settings.finalists.trials]
    by_hand = [one for one in done(slots) if one.slot < hand_picked]
    return list({one.number: one for one in (*best, *by_hand)}.values())


def choose(
    slots: Sequence[Record],
    settings: TuneSettings,
    scores: Mapping[int, Rescored],
    hand_picked: int,
) -> Choice:
    """Chooses a trial by `RULE`.

    Parameters
    ----------
    scores : of `finalists`.
    """
    by_hand = [one for one in slots if one.slot < hand_picked and one.number in scores]
    able = [one for one in slots if one.number in scores and allowed(one, settings)]
    if not able:
        return Choice(None, None, scores, by_hand)
    leader = min(able, key=lambda one: scores[one.number].interval.mean)
    equal = [
        one
        for one in able
        if one is leader or scores[one.number].less(scores[leader.number]).low <= 0
    ]
    chosen = min(equal, key=lambda r: (r.result["trainable"], scores[r.number].interval.mean))
    return Choice(chosen, leader, scores, by_hand)


def sentences(choice: Choice, slots: Sequence[Record], settings: TuneSettings) -> list[str]:
    """Returns what came out, in whole sentences."""
    if choice.chosen is None:
        bounds = ", ".join(f"{k} {v:g}" for k, v in settings.limits.items())
        n = len(done(slots))
        return [f"No trial is chosen: none of {n} with a result is within the limits ({bounds})."]
    chosen, said = choice.chosen, []
    score = choice.scores[chosen.number].interval
    said.append(
        f"Chosen: trial {chosen.number} ({name_of(chosen.config)}), regional distance "
        f"{_text(score)}, {chosen.result['trainable']:,} trained parameters "
        f"({100 * chosen.result['trainable_share']:.2f} % of the network)."
    )
    leader = choice.leader
    if leader is not None and leader is not chosen:
        gap = choice.against(leader)
        said.append(
            f"Trial {leader.number} ({name_of(leader.config)}) has the smallest distance and "
            f"trains {leader.result['trainable']:,} parameters; the difference, {_text(gap)}, "
            "may be chance."
        )
    others = [one for one in choice.hand_picked if one is not chosen]
    if len(others) < len(choice.hand_picked):
        said.append("The chosen settings are hand-picked ones.")
    for one in others:
        gap = choice.against(one)
        what = "no difference from" if not gap.without_zero else "better than"
        if gap.low > 0:
            what = "worse than"
        said.append(f"Against {name_of(one.config)}, picked by hand: {what} it ({_text(gap)}).")
    seeds = len(choice.scores[chosen.number].by_seed)
    people = len(choice.scores[chosen.number].without)
    said.append(
        f"Intervals are for other seeds (of {seeds}) and other people (of {people}), not for "
        "another training: every trial was trained once. New seeds take away the luck of the old "
        "ones; that the same people chose the finalists still favours them a little."
    )
    return said


def _text(value: Interval) -> str:
    return f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"
