"""Ages (in bins of five years), sexes and sites of the training subjects.

That is enough to warn of extrapolation, and too coarse to identify anyone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
    sites : the same of each site alone, where sites were told apart.
    """

    counts: Mapping[Sex, Mapping[int, int]] = field(default_factory=dict)
    sites: Mapping[str, Coverage] = field(default_factory=dict)

    @classmethod
    def of(cls, conditions: Iterable[Condition]) -> Coverage:
        """Count the training subjects."""
        people = list(conditions)
        names = sorted({c.site for c in people if c.site is not None})
        sites = {s: cls.of(replace(c, site=None) for c in people if c.site == s) for s in names}
        bins = Counter((c.sex, int(c.age // _BIN) * _BIN) for c in people)
        sexes = sorted({sex for sex, _ in bins})
        counts = {s: {low: n for (x, low), n in sorted(bins.items()) if x == s} for s in sexes}
        return cls(counts, sites)

    @property
    def ages(self) -> tuple[float, float]:
        """First and last year of the bins that have subjects; 0, 0 where there is none."""
        lows = [low for bins in self.counts.values() for low in bins]
        return (float(min(lows)), float(max(lows) + _BIN)) if lows else (0.0, 0.0)

    @property
    def well_covered(self) -> tuple[float, float]:
        """First and last whole year that is covered for each sex, and not in the outer half of the
        first or last bin, where there may be nobody; `ages` where no year is."""
        low, high = self.ages
        years = range(math.ceil(low + _BIN / 2), math.floor(high - _BIN / 2) + 1)
        near = [y for y in years if all(self.near(Condition(y, s)) >= _FEWEST for s in self.counts)]
        return (float(near[0]), float(near[-1])) if near else (low, high)

    def near(self, condition: Condition) -> float:
        """About how many training subjects of the same sex are at most 5 years away."""
        first, last = condition.age - _NEAR, condition.age + _NEAR
        bins = self.counts.get(condition.sex, {})
        shares = (n * max(min(last, low + _BIN) - max(first, low), 0) for low, n in bins.items())
        return sum(shares) / _BIN

    def warning(self, condition: Condition) -> str | None:
        """What to say of a request that lies outside of what was seen; None for one inside."""
        if condition.site is not None:
            if condition.site not in self.sites:
                return f"no training subjects of site {condition.site}: an extrapolation"
            told = self.sites[condition.site].warning(replace(condition, site=None))
            return told and f"site {condition.site}: {told}"
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
        out: dict[str, Any] = {
            s: {str(low): n for low, n in bins.items()} for s, bins in self.counts.items()
        }
        if self.sites:
            out["sites"] = {name: one.to_json() for name, one in self.sites.items()}
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Coverage:
        """Inverse of `to_json`."""
        counts = {s: b for s, b in data.items() if s != "sites"}
        return cls(
            {cast(Sex, s): {int(k): n for k, n in b.items()} for s, b in counts.items()},
            {name: cls.from_json(one) for name, one in data.get("sites", {}).items()},
        )
