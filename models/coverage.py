"""Whom a generator has seen: enough to warn of requests far from them, too little to tell who."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from contracts.condition import Condition, Sex

# Exact ages would leave with the model, and with sex and site they may name a person.
_BIN = 5
# A request is near to training subjects of its sex up to this many years away, and covered by
# this many of them.
_NEAR = 5.0
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Coverage:
    """Training subjects per sex and bin of five years.

    Parameters
    ----------
    counts : sex -> first year of a bin -> subjects; empty where nothing is known.
    """

    counts: Mapping[Sex, Mapping[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> Coverage:
        """Count the training subjects."""
        bins = Counter((c.sex, int(c.age // _BIN) * _BIN) for c in conditions)
        sexes = sorted({sex for sex, _ in bins})
        return cls({s: {low: n for (x, low), n in sorted(bins.items()) if x == s} for s in sexes})

    @property
    def ages(self) -> tuple[float, float]:
        """First and last year of the bins that have subjects; 0, 0 where there is none."""
        lows = [low for bins in self.counts.values() for low in bins]
        return (float(min(lows)), float(max(lows) + _BIN)) if lows else (0.0, 0.0)

    def near(self, condition: Condition) -> float:
        """About how many training subjects of the same sex are at most 5 years away."""
        first, last = condition.age - _NEAR, condition.age + _NEAR
        bins = self.counts.get(condition.sex, {})
        shares = (n * max(min(last, low + _BIN) - max(first, low), 0) for low, n in bins.items())
        return sum(shares) / _BIN

    def warning(self, condition: Condition) -> str | None:
        """What to say of a request that lies outside of what was seen; None for one inside."""
        low, high = self.ages
        if not low <= condition.age <= high:
            where = f"age {condition.age:g} is outside the training coverage {low:g} to {high:g}"
            return f"{where} years: the volume is an extrapolation"
        near = self.near(condition)
        if near >= _FEWEST:
            return None
        return (
            f"age {condition.age:g}, sex {condition.sex} is outside the training coverage: about "
            f"{near:.0f} training subjects of that sex within {_NEAR:g} years, expected "
            f"{_FEWEST} or more; the volume is an extrapolation"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` gives the same coverage."""
        return {s: {str(low): n for low, n in bins.items()} for s, bins in self.counts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> Coverage:
        """Inverse of `to_json`."""
        return cls({cast(Sex, s): {int(k): n for k, n in b.items()} for s, b in data.items()})
